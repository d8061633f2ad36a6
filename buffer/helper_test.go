package buffer_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// TestMain lets the test binary be its own child process.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == buffer.ChildVerb {
		os.Exit(buffer.CheckChild(os.Args[2], os.Stderr))
	}
	if mode := os.Getenv("BUFFER_TEST_CHILD"); mode != "" {
		os.Exit(child(mode, os.Getenv("BUFFER_TEST_DIR")))
	}
	os.Exit(m.Run())
}

// rowOf is the row that belongs at a number: every field hangs on it.
func rowOf(lane meter.Lane, n uint64) meter.Row {
	r := meter.Row{
		Meter:   meter.ID(fmt.Sprintf("meter-%d", n%20)),
		Serial:  fmt.Sprintf("SN%05d", n%20),
		Channel: meter.Channel(fmt.Sprintf("1-0:%d.8.0*255/3:2", 1+n%8)),
		Stamp: meter.Stamp{
			Time: 1_700_000_000_000 + int64(n/8)*900_000 + int64(n%7), Boot: 1,
			Mono: int64(n) * 11, Bound: uint32(n % 50), Source: meter.Source(n % 2),
		},
		Value: meter.UintValue(n*2_654_435_761, -2),
		Unit:  meter.WattHour,
		Lane:  lane,
	}
	if n%13 == 0 {
		r.Quality, r.Status, r.HasStatus = meter.PowerFailure, n, true
	}
	return r
}

// rowsOf gives the rows from number first on.
func rowsOf(lane meter.Lane, first uint64, n int) []meter.Row {
	rows := make([]meter.Row, n)
	for i := range rows {
		rows[i] = rowOf(lane, first+uint64(i))
	}
	return rows
}

// fatRows gives n rows of 3,000 octets each that do not deflate, to fill a store
// quickly.
func fatRows(lane meter.Lane, n int) []meter.Row {
	rows := rowsOf(lane, 1, n)
	b := make([]byte, 3000)
	random := rand.NewChaCha8([32]byte{byte(n)})
	for i := range rows {
		_, _ = random.Read(b) // never fails
		rows[i].Value = meter.OctetsValue(b)
	}
	return rows
}

// countLane peeks through a lane and counts its rows.
func countLane(s *buffer.Store, lane meter.Lane) (rows uint64, err error) {
	for after := uint64(0); ; {
		span, err := s.Peek(lane, after, 1000)
		if err != nil || span.Last == 0 {
			return rows, err
		}
		after = span.Last
		rows += uint64(len(span.Rows))
	}
}

// appendN appends the next n rows of a lane.
func appendN(t testing.TB, s *buffer.Store, lane meter.Lane, n int) {
	t.Helper()
	if err := s.Append(t.Context(), meter.Append{Rows: rowsOf(lane, s.Last(lane)+1, n)}); err != nil {
		t.Fatal(err)
	}
}

// readLane reads a lane from after on and checks that every number is
// accounted for once and every row is the one that belongs there.
func readLane(s *buffer.Store, lane meter.Lane, after uint64, most int) (rows uint64, holes []meter.Hole, err error) {
	next := after + 1
	for {
		span, err := s.Peek(lane, next-1, most)
		if err != nil {
			return rows, holes, err
		}
		if span.Last == 0 {
			break
		}
		if len(span.Rows) > most {
			return rows, holes, fmt.Errorf("%d rows, asked for %d", len(span.Rows), most)
		}
		runs, hs, at := span.Runs, span.Holes, 0
		for next <= span.Last {
			switch {
			case len(runs) > 0 && runs[0].First == next:
				for range runs[0].Count {
					if want := rowOf(lane, next); span.Rows[at] != want {
						return rows, holes, fmt.Errorf("lane %s number %d: %+v, want %+v", lane, next, span.Rows[at], want)
					}
					at, next = at+1, next+1
				}
				runs = runs[1:]
			case len(hs) > 0 && hs[0].First == next && hs[0].Last >= next:
				next = hs[0].Last + 1
				holes = append(holes, hs[0])
				hs = hs[1:]
			default:
				return rows, holes, fmt.Errorf("lane %s: number %d neither in a run nor in a hole: %+v %+v", lane, next, span.Runs, span.Holes)
			}
		}
		if len(runs)+len(hs) > 0 || at != len(span.Rows) || next != span.Last+1 {
			return rows, holes, fmt.Errorf("lane %s: span through %d does not add up", lane, span.Last)
		}
		rows += uint64(at)
	}
	if last := s.Last(lane); next != last+1 && after <= last {
		return rows, holes, fmt.Errorf("lane %s: ends at %d, last is %d", lane, next-1, last)
	}
	return rows, holes, nil
}

// fileOf is the store's file.
func fileOf(dir string) string { return filepath.Join(dir, "readings.db") }
