package pgtest

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// What is committed outlives a stop and a crash, on the same address.
func TestServer(t *testing.T) {
	t.Parallel()
	s := Start(t, "work_mem=5MB")
	url, other := s.Database(), s.Database()
	s.Exec(url, "CREATE TABLE a (n int)", "INSERT INTO a VALUES (1)")
	for _, end := range []func(){s.Stop, s.Crash} {
		end()
		if c, err := pgx.Connect(t.Context(), url); err == nil {
			_ = c.Close(t.Context())
			t.Error("it still answers")
		}
		s.Start()
		s.Exec(url, "INSERT INTO a SELECT n + 1 FROM a")
	}
	var n int
	var mem string
	if err := s.Connect(url).QueryRow(t.Context(), "SELECT count(*), current_setting('work_mem') FROM a").Scan(&n, &mem); err != nil || n != 4 || mem != "5MB" {
		t.Errorf("%d rows, work_mem %s, %v", n, mem, err)
	}
	if err := s.Connect(other).QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE tablename = 'a'").Scan(&n); err != nil || n != 0 {
		t.Errorf("the other database has the table too: %d, %v", n, err)
	}
}
