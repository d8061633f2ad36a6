package buffer_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// stormRow is rowOf with 1,500 octets that do not deflate.
func stormRow(lane meter.Lane, n uint64) meter.Row {
	r := rowOf(lane, n)
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], n)
	seed[31] = byte(lane)
	b := make([]byte, 1500)
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
	r.Value = meter.OctetsValue(b)
	return r
}

// stormStore makes a store of size octets that was not closed, in part
// acknowledged, and gives its file and the chunks in it.
func stormStore(t *testing.T, size int) (file []byte, chunks []buffer.ChunkPlace) {
	t.Helper()
	dir := shmDir(t)
	s, err := buffer.Open(dir, buffer.Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for written := 0; written < size*9/10; {
		var a meter.Append
		for _, lane := range meter.Lanes() {
			for i := range uint64(40) {
				a.Rows = append(a.Rows, stormRow(lane, s.Last(lane)+1+i))
				written += 1500
			}
			a.Cursors = append(a.Cursors, meter.Cursor{Meter: meter.ID(lane.String()), Profile: "p", Time: int64(s.Last(lane))})
		}
		if err := s.Append(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Ack(meter.Interval, s.Last(meter.Interval)/2), s.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	if file, err = os.ReadFile(fileOf(dir)); err != nil { // as after an unclean stop
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return file, buffer.ChunksOf(file)
}

// childStorm opens stores whose directories come on standard input and says
// what it found: how many rows, how many of them wrong, and whether the file
// was set aside.
func childStorm() error {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		rows, wrong, aside, err := stormOpen(in.Text())
		if err != nil {
			return err
		}
		fmt.Println("found", rows, wrong, aside)
	}
	return in.Err()
}

func stormOpen(dir string) (rows, wrong, aside int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, 0, err
	}
	s, err := buffer.Open(dir, buffer.Options{BootID: "b", HotBytes: 64 << 20, Child: []string{self, buffer.ChildVerb}, Report: report})
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.Recovered() != nil {
		aside = 1
	}
	for _, lane := range meter.Lanes() {
		for after := uint64(0); after < s.Last(lane); {
			span, err := s.Peek(lane, after, 500)
			if err != nil {
				return 0, 0, 0, err
			}
			after = span.Last
			for i := range span.Rows {
				switch r := &span.Rows[i]; {
				case r.Channel == "event.buffer-damaged":
				case *r != stormRow(lane, original(r)):
					wrong++
				default:
					rows++
				}
			}
		}
	}
	return rows, wrong, aside, nil
}

// wound damages a file at a random place and gives where.
func wound(file []byte) (bad []byte, from, to int, what string) {
	switch at := rand.IntN(len(file)); rand.IntN(5) {
	case 0:
		return file[:at], at, len(file), fmt.Sprintf("cut at %d", at)
	case 1:
		file[at] ^= 1 << rand.IntN(8)
		return file, at, at + 1, fmt.Sprintf("bit of octet %d", at)
	case 2: // the head of a page
		at = at/4096*4096 + rand.IntN(48)
		file[at] ^= byte(1 + rand.IntN(255))
		return file, at, at + 1, fmt.Sprintf("octet %d", at)
	case 3:
		at = at / 512 * 512
		clear(file[at : at+512])
		return file, at, at + 512, fmt.Sprintf("sector at %d", at)
	default: // early pages hold more of the tree
		at = rand.IntN(64)*4096 + rand.IntN(4096)
		file[at] ^= byte(1 + rand.IntN(255))
		return file, at, at + 1, fmt.Sprintf("octet %d", at)
	}
}

// storm damages a store of size octets at so many places, one at a time.
func storm(t *testing.T, size, places int) {
	t.Helper()
	file, chunks := stormStore(t, size)
	cmd := command(t, "storm", "")
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
	root, said := shmDir(t), bufio.NewReader(out)
	var asides, short int
	worst := 1.0
	scratch := make([]byte, len(file))
	for i := range places {
		copy(scratch, file)
		bad, from, to, what := wound(scratch)
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(fileOf(dir), bad, 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintln(in, dir); err != nil {
			t.Fatal(err)
		}
		var rows, wrong, aside int
		line, err := said.ReadString('\n')
		if err != nil || !scan(line, "found %d %d %d", &rows, &wrong, &aside) {
			t.Fatalf("%s: the agent died: %q %v %v", what, line, err, cmd.Wait())
		}
		want := 0
		for _, c := range chunks {
			if c.At >= to || c.At+c.Len <= from {
				want += c.Rows
			}
		}
		if wrong > 0 {
			t.Errorf("%s: %d wrong rows", what, wrong)
		}
		share := float64(rows) / float64(max(want, 1))
		if worst = min(worst, share); share < 0.95 && want > 0 {
			short++
			t.Errorf("%s: %d rows of %d in undamaged chunks", what, rows, want)
		}
		asides += aside
		_ = os.RemoveAll(dir)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d octets, %d chunks, %d places: %d set aside and salvaged, the rest read in place; worst %.2f %% of undamaged rows",
		len(file), len(chunks), places, asides, worst*100)
	if places > 20 && (asides == 0 || asides == places) {
		t.Error("the places hit only one kind of octet")
	}
}

func TestDamageStorm(t *testing.T) {
	t.Parallel()
	places := 60
	if raced {
		places = 10
	}
	storm(t, 4<<20, places)
}
