package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
)

// TestProfileOfACompactBuffer prints rows that come as a compact-array, from a
// meter that gives all rows or none.
func TestProfileOfACompactBuffer(t *testing.T) {
	t.Parallel()
	o := profileMeter(t)
	var buffer axdr.Value
	for i, object := range o.Objects {
		if object.Class != 7 {
			continue
		}
		contents := ""
		for n := range 4 {
			at := time.Date(2026, 3, 1, n, 0, 0, 0, time.UTC)
			contents += "\x0C" + dlmstest.DateTime(at) + "\x00" + "\x00\x00\x04" + string([]byte{byte(n)}) + "\x00\xE6"
		}
		v, _, err := axdr.Parse([]byte("\x13\x02\x04\x09\x11\x06\x12" + string([]byte{byte(len(contents))}) + contents))
		if err != nil {
			t.Fatal(err)
		}
		buffer = v
		read := object.Read
		o.Objects[i].Read = func(id int8, s *dlmstest.Selection) (axdr.Value, bool) {
			if id == 2 {
				return buffer, s == nil
			}
			return read(id, s)
		}
	}
	exit, out, errOut := cmdline(t, "profile", "dlms+wrapper://"+serveMeter(t, o), "1-0:99.1.0",
		"-control", filepath.Join(t.TempDir(), "none"), "-from", "2026-03-01T01:00:00Z", "-to", "2026-03-01T02:30:00Z", "-json")
	got := lines(out)
	if exit != 0 || errOut != "" || len(got) != 4 {
		t.Fatalf("exit code %d, %d lines\n%s%s", exit, len(got), out, errOut)
	}
	want := `{"meter":"meter","serial":"GRG1","channel":"1-0:1.8.0*255/3:2","time":"2026-03-01T01:00:00.000Z","value":102.5,"unit":"Wh","quality":"good","status":0}`
	if got[0] != want {
		t.Errorf("got  %s\nwant %s", got[0], want)
	}
}

// TestObjectsByShortNames lists the objects of an old meter, with a class that
// nobody knows.
func TestObjectsByShortNames(t *testing.T) {
	t.Parallel()
	o := profileMeter(t)
	o.Objects = append(o.Objects[:10:10], dlmstest.Object{Class: 9000, Code: code(t, "0-0:128.1.0"), Attributes: []int8{2}})
	o.Clients = map[uint16]dlmstest.Login{16: {Conformance: dlmstest.ShortNames}}
	exit, out, errOut := cmdline(t, "objects", "dlms+wrapper://"+serveMeter(t, o)+"?ref=sn", "-json", "-control", filepath.Join(t.TempDir(), "none"))
	if exit != 0 || errOut != "" || !strings.Contains(out, `{"obis":"0-0:128.1.0*255","class":9000,"name":"class 9000","version":0,"readable":null}`+"\n") {
		t.Errorf("exit code %d\n%s%s", exit, out, errOut)
	}
	for _, line := range lines(out) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
}
