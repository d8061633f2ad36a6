package buffer_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"gridgate/buffer"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

// fillStore makes a closed store of some chunks and gives its file.
func fillStore(t *testing.T, dir string) (file []byte, rows uint64) {
	t.Helper()
	s, err := buffer.Open(dir, buffer.Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		for _, lane := range meter.Lanes() {
			n := 20 + 700*(i%2)
			appendN(t, s, lane, n)
			rows += uint64(n)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if file, err = os.ReadFile(fileOf(dir)); err != nil {
		t.Fatal(err)
	}
	return file, rows
}

// TestDamage flips bits and cuts the file at random places. A child process
// opens what is left: it must live, and either read every row that the damage
// did not touch or move the file aside, untouched.
func TestDamage(t *testing.T) {
	t.Parallel()
	file, total := fillStore(t, t.TempDir())
	cmd := command(t, "survey", "")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	var reads, partly, aside int
	for i := range 200 {
		bad := bytes.Clone(file)
		what := ""
		switch i % 4 {
		case 0:
			at := rand.IntN(len(bad))
			bad, what = bad[:at], fmt.Sprintf("cut at %d", at)
		case 1: // anywhere
			at := rand.IntN(len(bad) * 8)
			bad[at/8] ^= 1 << (at % 8)
			what = fmt.Sprintf("bit %d of octet %d", at%8, at/8)
		case 2: // in the head of a page
			at := rand.IntN(len(bad)/4096)*4096 + rand.IntN(48)
			bad[at] ^= byte(1 + rand.IntN(255))
			what = fmt.Sprintf("octet %d (page %d)", at, at/4096)
		case 3: // a torn page
			at := rand.IntN(len(bad)/512) * 512
			clear(bad[at : at+512])
			what = fmt.Sprintf("sector at %d zeroed", at)
		}
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(fileOf(dir), bad, 0o600)); err != nil {
			t.Fatal(err)
		}
		var verdict string
		if _, err := fmt.Fprintln(in, dir); err == nil {
			verdict = readLine(out)
		}
		if verdict == "" {
			t.Fatalf("%s: the child died: %v", what, cmd.Wait())
		}
		var rows, damaged uint64
		switch {
		case strings.HasPrefix(verdict, "aside"):
			aside++
			kept, err := filepath.Glob(fileOf(dir) + ".damaged-*")
			if err != nil || len(kept) != 1 {
				t.Fatalf("%s: aside: %v %v", what, kept, err)
			}
			if b, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(b, bad) {
				t.Errorf("%s: what was moved aside is changed: %v", what, err)
			}
		case scan(verdict, "reads %d %d", &rows, &damaged):
			// One flip may take one chunk with it, a sector two.
			if rows+damaged != total || damaged > 2*2048 {
				t.Errorf("%s: %d rows and %d damaged of %d", what, rows, damaged, total)
			}
			if reads++; damaged > 0 {
				partly++
			}
		default:
			t.Errorf("%s: %s", what, verdict)
		}
		_ = os.RemoveAll(dir)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("of 200: %d read, %d of these with a chunk lost, %d moved aside", reads, partly, aside)
	if partly == 0 || aside == 0 || reads == partly {
		t.Error("the places hit only one kind of octet")
	}
}

func readLine(r interface{ Read([]byte) (int, error) }) string {
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := r.Read(b)
		if err != nil || n == 0 {
			return ""
		}
		if b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}

func scan(s, format string, to ...any) bool {
	n, err := fmt.Sscanf(s, format, to...)
	return err == nil && n == len(to)
}

// TestDamagedChunk flips a bit in a chunk: its numbers come as a hole, the rest
// reads, and it is counted once.
func TestDamagedChunk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := buffer.Open(dir, buffer.Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		appendN(t, s, meter.Interval, 1000)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(fileOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	// The third chunk: magic, version 2, lane 2, as it came, packed, first number 2001.
	at := bytes.Index(file, []byte("GGCK\x02\x02\x00\x01\xd1\x07\x00\x00"))
	if at < 0 {
		t.Fatal("no such chunk in the file")
	}
	file[at+1000] ^= 4
	if err := os.WriteFile(fileOf(dir), file, 0o600); err != nil {
		t.Fatal(err)
	}
	report, err := buffer.Check(dir)
	if err != nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0], "numbers 2001 to 3000") {
		t.Errorf("check: %v %q", err, report.Problems)
	}
	if s, err = buffer.Open(dir, buffer.Options{BootID: "b"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		rows, holes, err := readLane(s, meter.Interval, 0, 700)
		want := meter.Hole{First: 2001, Last: 3000, Reason: meter.Damaged, Count: 1000}
		if err != nil || rows != 4000 || len(holes) != 1 || holes[0] != want {
			t.Errorf("%d rows, holes %+v, %v", rows, holes, err)
		}
	}
	if st, err := s.Stat(); err != nil || st.Lanes[meter.Interval].Damaged != 1000 {
		t.Errorf("%+v %v", st.Lanes, err)
	}
	// It can be acknowledged and given up like any other.
	if err := errors.Join(s.Ack(meter.Interval, 5000), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = buffer.Open(dir, buffer.Options{BootID: "b", HotBytes: -1}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	appendN(t, s, meter.Interval, 1)
	if st, err := s.Stat(); err != nil || st.Lanes[meter.Interval].First != 5001 || st.Lanes[meter.Interval].Rows != 1 {
		t.Errorf("%+v %v", st.Lanes, err)
	}
}

// TestMovedAside opens what is not a store.
func TestMovedAside(t *testing.T) {
	t.Parallel()
	foreign := func(t *testing.T, path string) {
		db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: 4096})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write := func(b []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	whole, _ := fillStore(t, t.TempDir())
	for name, make := range map[string]func(*testing.T, string){
		"text":           write([]byte("not a database\n")),
		"zeros":          write(bytes.Repeat([]byte{0}, 65536)),
		"one octet":      write([]byte{7}),
		"their database": foreign,
		"cut short":      write(whole[:len(whole)/2]),
		"last page gone": write(whole[:3*4096]),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			make(t, fileOf(dir))
			was, err := os.ReadFile(fileOf(dir))
			if err != nil {
				t.Fatal(err)
			}
			report, err := buffer.Check(dir)
			if err != nil || report.Sound() {
				t.Errorf("check: %+v %v", report, err)
			}
			now := func() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }
			s := buffertest.OpenDir(t, dir, buffer.Options{Now: now})
			r := s.Recovered()
			if r == nil || r.Path != fileOf(dir)+".damaged-20260304T050607Z" || !errors.Is(r.Reason, buffer.ErrDamaged) {
				t.Fatalf("recovered: %+v", r)
			}
			if b, err := os.ReadFile(r.Path); err != nil || !bytes.Equal(b, was) {
				t.Errorf("the file moved aside is changed: %v", err)
			}
			if s.Epoch() == 0 || !r.Unsure && r.Chunks == 0 {
				t.Errorf("nothing is known of what was lost: %+v", r)
			}
			appendN(t, s, meter.Billing, 3)
		})
	}
}

// TestAsideIsBounded damages a store again and again: old damaged files go, the
// epoch changes each time.
func TestAsideIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	epochs := map[uint64]bool{}
	for range 6 {
		s := buffertest.OpenDir(t, dir, buffer.Options{Now: func() time.Time { return time.Unix(0, 0) }})
		epochs[s.Epoch()] = true
		if err := errors.Join(s.Close(), os.WriteFile(fileOf(dir), []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(fileOf(dir)); err != nil {
		t.Fatal(err)
	}
	s := buffertest.OpenDir(t, dir, buffer.Options{})
	if kept, err := filepath.Glob(fileOf(dir) + ".damaged-*"); err != nil || len(kept) != 3 || len(epochs) != 6 || s.Recovered() != nil {
		t.Errorf("kept %v, %d epochs, %v", kept, len(epochs), err)
	}
}

// TestRefused opens what must not be touched.
func TestRefused(t *testing.T) {
	t.Parallel()
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(fileOf(dir), 0o700), os.WriteFile(filepath.Join(fileOf(dir), "x"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		if r, err := buffer.Check(dir); err == nil && r.Sound() {
			t.Error("a directory is sound")
		}
		s, err := buffer.Open(dir, buffer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		appendN(t, s, meter.Interval, 10)
		r := s.Recovered()
		if r == nil || !strings.Contains(r.Reason.Error(), "not a file but a directory") {
			t.Fatalf("%+v", r)
		}
		if _, err := os.Stat(filepath.Join(r.Path, "x")); err != nil {
			t.Errorf("what was in it is gone: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("newer format", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		buffer.MakeNewer(t, dir)
		before, err := os.ReadFile(fileOf(dir))
		if err != nil {
			t.Fatal(err)
		}
		var format *buffer.FormatError
		_, oerr := buffer.Open(dir, buffer.Options{})
		_, cerr := buffer.Check(dir)
		for _, err := range []error{oerr, cerr} {
			if !errors.As(err, &format) || format.Found != 3 || format.Known != 2 || !strings.Contains(err.Error(), "install") {
				t.Errorf("%v", err)
			}
		}
		if after, err := os.ReadFile(fileOf(dir)); err != nil || !bytes.Equal(before, after) {
			t.Errorf("the file was touched: %v", err)
		}
	})
	t.Run("no permission", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := errors.Join(os.WriteFile(fileOf(dir), []byte("x"), 0), os.WriteFile(fileOf(dir)+".lock", nil, 0o666),
			os.Chmod(fileOf(dir)+".lock", 0o666), os.Chmod(dir, 0o777), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
			t.Fatal(err)
		}
		// As another user on this thread only; the thread is given up after.
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			if os.Getuid() == 0 {
				if ferr := syscall.Setfsuid(65534); ferr != nil {
					err = ferr
					return
				}
			}
			_, err = buffer.Open(dir, buffer.Options{})
		}()
		<-done
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "give the agent's user the file") {
			t.Error(err)
		}
		if _, err := os.Lstat(fileOf(dir)); err != nil {
			t.Errorf("the file was moved: %v", err)
		}
	})
}
