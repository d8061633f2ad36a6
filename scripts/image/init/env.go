package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tries is what U-Boot's script counts: the slot to try first, and how many tries
// each has left, and which slot is on trial. It lies in two files that take turns, gw0.env and gw1.env, in the
// form of `env export -c`: CRC-32 of the rest (little endian), then NAME=VALUE with
// a zero after each, one more zero, and zeros to 512 octets.
type tries struct {
	seq   int // 0, 1, 2, 0, …
	first string
	left  map[string]int
	trial string // the slot that nobody has confirmed yet; empty: none
}

// notOnTrial stands in the file where no slot is.
const notOnTrial = "no"

const (
	envSize = 512
	// fullTries is what a slot has that has proven itself: enough for a power line
	// that comes and goes a few times before the gateway stands.
	fullTries = 6
)

func (t tries) bytes() []byte {
	b := make([]byte, envSize)
	text := fmt.Sprintf("gw_a=%d\x00gw_b=%d\x00gw_first=%s\x00gw_seq=%d\x00gw_trial=%s\x00",
		t.left["a"], t.left["b"], t.first, t.seq, cmp.Or(t.trial, notOnTrial))
	copy(b[4:], text)
	binary.LittleEndian.PutUint32(b, crc32.ChecksumIEEE(b[4:]))
	return b
}

func parseTries(b []byte) (tries, error) {
	if len(b) != envSize {
		return tries{}, fmt.Errorf("has %d octets", len(b))
	}
	if binary.LittleEndian.Uint32(b) != crc32.ChecksumIEEE(b[4:]) {
		return tries{}, errors.New("wrong checksum")
	}
	t := tries{left: map[string]int{}}
	for field := range bytes.SplitSeq(b[4:], []byte{0}) {
		name, value, _ := strings.Cut(string(field), "=")
		n, err := strconv.Atoi(value)
		switch name {
		case "gw_first":
			t.first = value
			continue
		case "gw_trial": // files of older images have none
			t.trial = strings.TrimSuffix(value, notOnTrial)
			continue
		case "gw_a", "gw_b":
			t.left[strings.TrimPrefix(name, "gw_")] = n
		case "gw_seq":
			t.seq = n
		default:
			continue
		}
		if err != nil || n < 0 {
			return tries{}, fmt.Errorf("%s is %q", name, value)
		}
	}
	if (t.first != "a" && t.first != "b") || t.seq > 2 {
		return tries{}, fmt.Errorf("says slot %q first, number %d", t.first, t.seq)
	}
	if t.trial != "" && t.trial != "a" && t.trial != "b" {
		return tries{}, fmt.Errorf("says slot %q is on trial", t.trial)
	}
	return t, nil
}

// next gives the slot that U-Boot takes at the next start.
func (t tries) next() string {
	for _, slot := range []string{t.first, otherOf(t.first)} {
		if t.left[slot] > 0 {
			return slot
		}
	}
	return "f"
}

// otherOf gives the slot that is written when one runs; that of the factory never
// is.
func otherOf(slot string) string {
	if slot == "a" {
		return "b"
	}
	return "a"
}

// readTries gives the newer of the two files, and which one it is.
func readTries(dir string) (t tries, file int, err error) {
	var found [2]*tries
	var errs []error
	for i := range found {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("gw%d.env", i)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			var t tries
			if t, err = parseTries(b); err == nil {
				found[i] = &t
				continue
			}
		}
		errs = append(errs, fmt.Errorf("gw%d.env: %w", i, err))
	}
	switch {
	case found[0] == nil && found[1] == nil:
		return tries{seq: 2, first: "a", left: map[string]int{"a": fullTries}}, 1, errors.Join(errs...)
	case found[1] == nil:
		return *found[0], 0, nil
	case found[0] == nil || found[1].seq == (found[0].seq+1)%3:
		return *found[1], 1, nil
	default:
		return *found[0], 0, nil
	}
}

// writeTries replaces the older of the two files.
func writeTries(dir string, change func(*tries) error) error {
	t, file, _ := readTries(dir) // two that do not read are written anew
	if err := change(&t); err != nil {
		return err
	}
	t.seq = (t.seq + 1) % 3
	name := filepath.Join(dir, fmt.Sprintf("gw%d.env", 1-file))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(t.bytes())
	return errors.Join(err, f.Truncate(envSize), f.Sync(), f.Close())
}
