package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// What U-Boot 2023.01 wrote at the first boot of an image.
func TestReadsWhatUBootWrites(t *testing.T) {
	b, err := os.ReadFile("testdata/uboot-2023.01.env")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseTries(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.seq != 0 || got.first != "a" || got.left["a"] != 5 || got.left["b"] != 0 {
		t.Errorf("%+v", got)
	}
	if ours := got.bytes(); !bytes.Equal(ours, b) {
		t.Errorf("we write\n%q\nU-Boot wrote\n%q", ours, b)
	}
	old, err := os.ReadFile("testdata/without-trial.env") // of an image from before there were trials
	if err != nil {
		t.Fatal(err)
	}
	if before, err := parseTries(old); err != nil || !bytes.Equal(before.bytes(), b) {
		t.Errorf("%+v %v", before, err)
	}
	for _, trial := range []string{"a", "b"} {
		got.trial = trial
		if again, err := parseTries(got.bytes()); err != nil || again.trial != trial {
			t.Errorf("%+v %v", again, err)
		}
	}
	got.trial = "f"
	if _, err := parseTries(got.bytes()); err == nil {
		t.Error("the factory's slot is on trial")
	}
}

// A cut at any octet of a write leaves the other file, which says what was so
// before.
func TestTriesThroughCuts(t *testing.T) {
	dir := t.TempDir()
	for round := range 7 {
		if err := writeTries(dir, func(c *tries) error { c.left["b"] = round; return nil }); err != nil {
			t.Fatal(err)
		}
		now, file, err := readTries(dir)
		if err != nil || now.left["b"] != round || now.left["a"] != fullTries {
			t.Fatalf("round %d: %+v %v", round, now, err)
		}
		if round == 0 {
			continue
		}
		name := filepath.Join(dir, "gw"+strconv.Itoa(file)+".env")
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(whole) {
			torn := bytes.Clone(whole)
			for i := n; i < len(torn); i++ {
				torn[i] = 0xff
			}
			for _, content := range [][]byte{torn, whole[:n]} {
				if err := os.WriteFile(name, content, 0o600); err != nil {
					t.Fatal(err)
				}
				if then, _, err := readTries(dir); err != nil || then.left["b"] != round-1 {
					t.Fatalf("round %d, cut at %d: %+v %v", round, n, then, err)
				}
			}
		}
		if err := os.WriteFile(name, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBothFilesDamaged(t *testing.T) {
	dir := t.TempDir()
	for i := range 2 {
		if err := os.WriteFile(filepath.Join(dir, "gw"+strconv.Itoa(i)+".env"), []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, _, err := readTries(dir)
	if err == nil || got.first != "a" || got.left["a"] != fullTries {
		t.Errorf("%+v %v", got, err)
	}
}

func TestModulesByAlias(t *testing.T) {
	m := &modules{needs: map[string][]string{}}
	m.parse("usbserial: usbcore\nftdi_sio: usbcore usbserial\nalias usb:v0403p6001d*dc*dsc*dp*ic*isc*ip*in* ftdi_sio\nalias of:N*T*Cvirtio,mmio virtio_mmio\n")
	for alias, want := range map[string][]string{
		"usb:v0403p6001d0600dc00dsc00dp00icFFiscFFipFFin00": {"ftdi_sio"},
		"of:Nvirtio_mmioT(null)Cvirtio,mmio":                {"virtio_mmio"},
		"usb:v0403p6002d0600dc00dsc00dp00icFFiscFFipFFin00": nil,
	} {
		if got := m.matching(alias); !slices.Equal(got, want) {
			t.Errorf("%s: %v", alias, got)
		}
	}
	if got := m.needs["ftdi_sio"]; !slices.Equal(got, []string{"usbcore", "usbserial"}) {
		t.Errorf("needs %v", got)
	}
}

func TestSlotOfTheCommandLine(t *testing.T) {
	for line, want := range map[string]string{
		"console=ttyAMA0 gw.slot=b quiet\n": "b", "gw.slot=a": "a", "gw.slot=f": "f", "gw.slot=": "f", "": "f", "gw.slot=c": "f",
	} {
		if got := slotOf(line); got != want {
			t.Errorf("%q: %s", line, got)
		}
	}
}

func TestStuck(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	for _, c := range []struct {
		now, ready, heard int
		want              bool
	}{
		{now: 899},
		{now: 901, want: true},
		{now: 400, ready: 5, heard: 101},
		{now: 402, ready: 5, heard: 101, want: true},
	} {
		var ready, heard time.Time
		if c.ready > 0 {
			ready, heard = at(c.ready), at(c.heard)
		}
		if got := stuck(at(c.now), at(0), ready, heard); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestEndsTooOften(t *testing.T) {
	s := &supervisor{}
	begin := time.Unix(1000, 0)
	for i := range tooOften - 1 {
		if s.died(begin.Add(time.Duration(i) * time.Second)) {
			t.Fatalf("the %dth is too many", i+1)
		}
	}
	if !s.died(begin.Add(10 * time.Second)) {
		t.Error("five in ten seconds are not too many")
	}
	s = &supervisor{}
	for i := range 20 {
		if s.died(begin.Add(time.Duration(i) * inTime / (tooOften - 2))) {
			t.Fatal("rare ones are too many")
		}
	}
}
