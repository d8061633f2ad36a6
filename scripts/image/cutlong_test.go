//go:build soak

package main

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

func TestSoakPowerCuts(t *testing.T) {
	newUpdater(t, "").cuts(30)
}

// logged is a write as QEMU's blklogwrites notes it, in the form of the kernel's
// dm-log-writes.
type logged struct {
	at    int64
	flags uint64
	data  []byte
}

const (
	logFlush = 1 << iota
	logFUA
	logDiscard
)

func readLog(t *testing.T, path string) []logged {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block := func() []byte {
		t.Helper()
		b := make([]byte, 512)
		if _, err := io.ReadFull(f, b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	super := block()
	if magic := binary.LittleEndian.Uint64(super); magic != 0x6a736677736872 {
		t.Fatalf("no log of writes: %x", magic)
	}
	var all []logged
	for range binary.LittleEndian.Uint64(super[16:]) {
		b := block()
		l := logged{at: int64(binary.LittleEndian.Uint64(b)) * 512, flags: binary.LittleEndian.Uint64(b[16:])}
		if n := binary.LittleEndian.Uint64(b[8:]); l.flags&logDiscard == 0 {
			l.data = make([]byte, n*512)
			if _, err := io.ReadFull(f, l.data); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, l)
	}
	return all
}

// crash brings a card to what it may hold when the power goes after n writes:
// everything up to the last flush, and of what was written since, sectors by chance.
// One that lies forgets what was flushed too.
func crash(t *testing.T, card string, log []logged, r *rand.Rand, lies bool) {
	t.Helper()
	f, err := os.OpenFile(card, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	durable := 0
	for i, l := range log {
		if l.flags&logFlush != 0 {
			durable = i
		}
	}
	for i, l := range log {
		for at := 0; at < len(l.data); at += 512 {
			if (lies || i > durable && l.flags&logFUA == 0) && r.IntN(2) == 0 {
				continue
			}
			if _, err := f.WriteAt(l.data[at:at+512], l.at+int64(at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSoakCardsThatForget: a card may lose what it was not told to keep yet, and
// keep later writes before earlier ones. One update is logged write by write, and
// the card brought to states in which a cut may leave it; in none of them may a
// slot be started that is not of one piece, and each tenth is started. That it would
// be noticed is shown by a card that lies.
func TestSoakCardsThatForget(t *testing.T) {
	u := newUpdater(t, "")
	before := filepath.Join(t.TempDir(), "before")
	u.tool("cp", "--sparse=always", u.card, before)
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	u.drive = []string{
		"-blockdev", "driver=file,filename=" + u.card + ",node-name=f", "-blockdev", "driver=raw,file=f,node-name=r",
		"-blockdev", "driver=file,filename=" + path + ",node-name=l", "-blockdev", "driver=blklogwrites,file=r,log=l,node-name=d",
		"-device", "virtio-blk-device,drive=d",
	}
	u.round(u.boot(), "")
	u.round(u.await(""), "")
	u.q.Kill()
	u.drive = nil
	log := readLog(t, path)
	t.Logf("%d writes", len(log))
	for i := range 100 {
		n := 1 + u.rand.IntN(len(log))
		u.tool("cp", "--sparse=always", before, u.card)
		crash(t, u.card, log[:n], u.rand, false)
		if err := mixed(t, u.card); err != nil {
			t.Errorf("after %d writes: %v", n, err)
		}
		if i%10 == 0 {
			if s := u.boot(); s.Slot == "f" {
				t.Errorf("after %d writes: the factory's slot runs", n)
			}
			u.q.Kill()
		}
	}
	found := 0
	for range 20 {
		u.tool("cp", "--sparse=always", before, u.card)
		crash(t, u.card, log, u.rand, true)
		if mixed(t, u.card) != nil {
			found++
		}
	}
	if found == 0 {
		t.Error("a card that lies about what it has was not noticed")
	}
	t.Logf("cards that lie: %d of 20 noticed", found)
}
