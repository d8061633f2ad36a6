package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// partition writes the table: GPT, or MBR where the boot loader stands in its
// place.
func (b *build) partition() error {
	const (
		fat   = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
		linux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
	)
	var t strings.Builder
	sizes := []int{bootSize, slotSize, slotSize, b.data}
	names := []string{"boot", "slot-a", "slot-b", "data"}
	if b.board.mbr {
		t.WriteString("label: dos\nlabel-id: 0x67726964\n")
	} else {
		t.WriteString("label: gpt\nlabel-id: 67726964-6761-7465-8000-000000000000\nfirst-lba: 2048\n")
	}
	at := gap
	for i, size := range sizes {
		fmt.Fprintf(&t, "start=%dMiB, size=%dMiB", at, size)
		at += size
		switch {
		case b.board.mbr && i == 0:
			t.WriteString(", type=c, bootable\n")
		case b.board.mbr && i == 3:
			t.WriteString(", type=83\n")
		case b.board.mbr:
			t.WriteString(", type=c\n")
		default:
			kind := fat
			if i == 3 {
				kind = linux
			}
			fmt.Fprintf(&t, ", type=%s, uuid=67726964-6761-7465-8000-00000000000%d, name=%s", kind, i+1, names[i])
			if i == 0 {
				t.WriteString(", attrs=LegacyBIOSBootable")
			}
			t.WriteString("\n")
		}
	}
	c := exec.Command("sfdisk", "-q", b.out) //nolint:gosec // a file that we made
	c.Stdin = strings.NewReader(t.String())
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("sfdisk: %w\n%s", err, out)
	}
	return nil
}

// sparse makes a file of some MiB with nothing in it.
func sparse(path string, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(int64(size)*mib), f.Close())
}

// copyAt copies a file and gives it the time that all files of images have.
func copyAt(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // it was only read
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		return err
	}
	sec, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return err
	}
	at := time.Unix(sec, 0)
	return os.Chtimes(to, at, at)
}

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
