package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/proctest"
)

func code(t *testing.T, s string) obis.Code {
	t.Helper()
	c, err := obis.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serveMeter serves a meter on a port of this machine until the test ends, and
// gives host:port.
func serveMeter(t *testing.T, o dlmstest.Options) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := dlmstest.NewMeter(o)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				stop := context.AfterFunc(t.Context(), func() { conn.Close() })
				defer stop()
				_ = m.Serve(conn)
				conn.Close()
			})
		}
	})
	t.Cleanup(func() { ln.Close(); tasks.Wait() })
	return ln.Addr().String()
}

// profileMeter is a meter with a load profile of a row every quarter of an
// hour of 2026-03-01 and 02 by UTC, that tells its times by UTC+3.
func profileMeter(t *testing.T) dlmstest.Options {
	t.Helper()
	const quarter = 15 * time.Minute
	zone := time.FixedZone("", 3*60*60)
	first := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	rows := func(s *dlmstest.Selection) (rows []axdr.Value) {
		for i := range 192 {
			at := first.Add(time.Duration(i) * quarter)
			if s != nil && (at.Before(s.From) || at.After(s.To)) {
				continue
			}
			rows = append(rows, axdr.Structure(
				axdr.OctetString(dlmstest.DateTime(at.In(zone))), axdr.Unsigned(uint8(i)), axdr.DoubleLongUnsigned(uint32(1000+i)), axdr.LongUnsigned(230)))
		}
		return rows
	}
	objects := []dlmstest.Object{
		dlmstest.Data(code(t, "0-0:96.1.0"), dlmstest.Fixed(axdr.OctetString("GRG1"))),
		dlmstest.Clock(code(t, "0-0:1.0.0"), func() time.Time { return time.Now().In(zone) }),
		dlmstest.Register(code(t, "1-0:1.8.0"), -1, 30, dlmstest.Fixed(axdr.DoubleLongUnsigned(5))),
		dlmstest.Register(code(t, "1-0:32.7.0"), 0, 35, dlmstest.Fixed(axdr.LongUnsigned(230))),
		dlmstest.Profile(code(t, "1-0:99.1.0"), []dlmstest.Column{
			{Class: 8, Code: code(t, "0-0:1.0.0"), ID: 2},
			{Class: 1, Code: code(t, "0-0:96.10.1"), ID: 2},
			{Class: 3, Code: code(t, "1-0:1.8.0"), ID: 2},
			{Class: 3, Code: code(t, "1-0:32.7.0"), ID: 2},
		}, uint32(quarter/time.Second), rows),
	}
	for i := range 200 { // so that the list of objects comes in blocks
		objects = append(objects, dlmstest.Data(code(t, fmt.Sprintf("0-1:128.0.%d", i)), dlmstest.Fixed(axdr.Unsigned(1))))
	}
	return dlmstest.Options{Objects: objects, MaxPDU: 512, Clients: map[uint16]dlmstest.Login{
		16: {Conformance: dlmstest.Plain}, 17: {Mechanism: 1, Secret: "12345678"},
	}}
}

// lines gives the lines of text, without that after the last.
func lines(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }

func TestObjects(t *testing.T) {
	t.Parallel()
	at := "dlms+wrapper://" + serveMeter(t, profileMeter(t))
	nowhere := filepath.Join(t.TempDir(), "none")
	code, out, errOut := cmdline(t, "objects", at, "-control", nowhere)
	if code != 0 || errOut != "" || !strings.Contains(out, "\n1-0:1.8.0                 3  register                        0  1 2 3\n") {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
	code, out, errOut = cmdline(t, "objects", at+"?client=17&auth=lls&password=12345678", "-json", "-control", nowhere)
	if code != 0 || errOut != "" || len(lines(out)) < 205 {
		t.Fatalf("exit code %d, %d objects\n%s", code, len(lines(out)), errOut)
	}
	type object struct {
		OBIS     string
		Class    int
		Name     string
		Version  *int
		Readable []int
	}
	found := false
	for _, line := range lines(out) {
		var o object
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		found = found || o.OBIS == "1-0:99.1.0*255" && o.Class == 7 && o.Name == "profile generic" && o.Version != nil && slices.Contains(o.Readable, 2)
	}
	if !found {
		t.Errorf("the profile is not among\n%s", out)
	}
}

func TestProfile(t *testing.T) {
	t.Parallel()
	at := "dlms+wrapper://" + serveMeter(t, profileMeter(t))
	nowhere := filepath.Join(t.TempDir(), "none")
	read := func(t *testing.T, args ...string) []string {
		t.Helper()
		code, out, errOut := cmdline(t, append([]string{"profile", at, "1-0:99.1.0", "-control", nowhere}, args...)...)
		if code != 0 || errOut != "" {
			t.Fatalf("exit code %d\n%s%s", code, out, errOut)
		}
		return lines(out)
	}
	t.Run("table", func(t *testing.T) {
		t.Parallel()
		got := read(t, "-from", "2026-03-01", "-to", "2026-03-02", "-zone", "Asia/Baghdad")
		// Midnight in Baghdad is 21:00 UTC of the day before, where there are no rows.
		want := "2026-03-01T03:00:00+03:00         0x0           100.0             230  good"
		if len(got) != 1+21*4+1 || got[1] != want {
			t.Errorf("%d lines\n%s\n%s\nwant\n%s", len(got), got[0], got[1], want)
		}
		for _, name := range []string{"1-0:1.8.0 [Wh]", "1-0:32.7.0 [V]", "STATUS", "QUALITY"} {
			if !strings.Contains(got[0], name) {
				t.Errorf("no %s in %s", name, got[0])
			}
		}
		if last := got[len(got)-1]; !strings.HasPrefix(last, "2026-03-02T00:00:00+03:00        0x54           108.4") {
			t.Errorf("the last row is %s", last)
		}
	})
	t.Run("json", func(t *testing.T) {
		t.Parallel()
		got := read(t, "-from", "2026-03-01T06:00:00Z", "-to", "2026-03-01T09:15:00+03:00", "-json")
		want := `{"meter":"meter","serial":"GRG1","channel":"1-0:1.8.0*255/3:2","time":"2026-03-01T06:00:00.000Z","value":102.4,"unit":"Wh","quality":"good","status":24}`
		if len(got) != 2*2 || got[0] != want {
			t.Errorf("%d lines, the first\n%s\nwant\n%s", len(got), got[0], want)
		}
	})
	t.Run("nothing in the last day", func(t *testing.T) {
		t.Parallel()
		if got := read(t); len(got) != 1 || got[0] != "" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("another meter", func(t *testing.T) {
		t.Parallel()
		code, out, errOut := cmdline(t, "profile", at, "1-0:99.1.0", "-control", nowhere, "-serial", "GRG2", "-from", "2026-03-02", "-to", "2026-03-02")
		if code != 1 || len(lines(out)) != 2 || !strings.Contains(errOut, "found GRG1") {
			t.Errorf("exit code %d\n%s%s", code, out, errOut)
		}
	})
}

// TestProfileOfManyRows reads more than a visit of the driver takes.
func TestProfileOfManyRows(t *testing.T) {
	t.Parallel()
	const n = 3000
	first := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	o := profileMeter(t)
	o.Objects = slices.DeleteFunc(o.Objects, func(o dlmstest.Object) bool { return o.Class == 7 })
	o.Objects = append(o.Objects, dlmstest.Profile(code(t, "1-0:99.1.0"), []dlmstest.Column{
		{Class: 8, Code: code(t, "0-0:1.0.0"), ID: 2}, {Class: 3, Code: code(t, "1-0:1.8.0"), ID: 2}, {Class: 3, Code: code(t, "1-0:32.7.0"), ID: 2},
	}, 60, func(s *dlmstest.Selection) (rows []axdr.Value) {
		for i := range n {
			if at := first.Add(time.Duration(i) * time.Minute); s == nil || !at.Before(s.From) && !at.After(s.To) {
				rows = append(rows, axdr.Structure(axdr.OctetString(dlmstest.DateTime(at)), axdr.DoubleLongUnsigned(uint32(i)), axdr.LongUnsigned(1)))
			}
		}
		return rows
	}))
	exit, out, errOut := cmdline(t, "profile", "dlms+wrapper://"+serveMeter(t, o), "1-0:99.1.0",
		"-control", filepath.Join(t.TempDir(), "none"), "-from", "2026-03-01", "-to", "2026-03-04")
	got := lines(out)
	if exit != 0 || errOut != "" || len(got) != 1+n {
		t.Fatalf("exit code %d, %d lines, want %d\n%s", exit, len(got), 1+n, errOut)
	}
	for i, line := range got[1:] {
		if want := first.Add(time.Duration(i) * time.Minute).Format(time.RFC3339); !strings.HasPrefix(line, want) {
			t.Fatalf("line %d is %s, want %s", i, line, want)
		}
	}
}

func TestCOSEMVerbsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	at := "dlms+wrapper://" + serveMeter(t, profileMeter(t))
	nobody := fmt.Sprintf("dlms+wrapper://127.0.0.1:%d", proctest.FreePorts(t, 1))
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"objects: no address":         {[]string{"objects"}, 2, "want one URL"},
		"objects: two":                {[]string{"objects", at, at}, 2, "want one URL"},
		"objects: unknown scheme":     {[]string{"objects", "dlsm://h"}, 2, "unknown scheme"},
		"objects: Modbus":             {[]string{"objects", "modbus+tcp://127.0.0.1?unit=1&model=eastron-sdm630"}, 2, "no DLMS objects"},
		"objects: nobody there":       {[]string{"objects", nobody}, 1, "no answer"},
		"objects: wrong password":     {[]string{"objects", at + "?client=17&auth=lls&password=Hunter2"}, 1, "refused client 17: authentication failed (wrong password?)"},
		"objects: wrong client":       {[]string{"objects", at + "?client=9"}, 1, "client 9"},
		"objects: no secret":          {[]string{"objects", at + "?client=17&auth=lls&password=env:GRIDGATE_NOT_SET"}, 1, "GRIDGATE_NOT_SET"},
		"profile: no address":         {[]string{"profile"}, 2, "want a URL and the OBIS code"},
		"profile: no code":            {[]string{"profile", at}, 2, "want a URL and the OBIS code"},
		"profile: bad code":           {[]string{"profile", at, "1-0:99"}, 2, "1-0:99"},
		"profile: a name":             {[]string{"profile", at, "thd.current"}, 2, "want the OBIS code of a profile"},
		"profile: a register":         {[]string{"profile", at, "1-0:1.8.0/3:2"}, 2, "want the OBIS code of a profile"},
		"profile: no such":            {[]string{"profile", at, "1-0:98.1.0"}, 1, "object undefined"},
		"profile: a register's code":  {[]string{"profile", at, "1-0:1.8.0"}, 1, "1-0:1.8.0"},
		"profile: bad time":           {[]string{"profile", at, "1-0:99.1.0", "-from", "yesterday"}, 2, `-from "yesterday": want a date`},
		"profile: no such day":        {[]string{"profile", at, "1-0:99.1.0", "-to", "2026-02-30"}, 2, "-to"},
		"profile: turned around":      {[]string{"profile", at, "1-0:99.1.0", "-from", "2026-03-02", "-to", "2026-03-01"}, 2, "-from is after -to"},
		"profile: no such zone":       {[]string{"profile", at, "1-0:99.1.0", "-zone", "Mars"}, 2, "-zone"},
		"profile: nobody there":       {[]string{"profile", nobody, "1-0:99.1.0"}, 1, "no answer"},
		"profile: a secret stays":     {[]string{"profile", at + "?auth=lls&password=Hunter2&x=1", "1-0:99.1.0"}, 2, "write '&' as %26"},
		"profile: Modbus":             {[]string{"profile", "modbus+tcp://127.0.0.1?unit=1&model=eastron-sdm630", "1-0:99.1.0"}, 2, "no DLMS objects"},
		"listen: no address":          {[]string{"listen"}, 2, "want one URL"},
		"listen: unknown scheme":      {[]string{"listen", "http://:4059"}, 2, "unknown scheme: want tcp://"},
		"listen: no scheme":           {[]string{"listen", ":4059"}, 2, "unknown scheme"},
		"listen: bad port":            {[]string{"listen", "tcp://127.0.0.1:x"}, 2, "neither host nor port"},
		"listen: port too high":       {[]string{"listen", "tcp://127.0.0.1:65536"}, 2, "neither host nor port"},
		"listen: bad IPv6":            {[]string{"listen", "tcp://::1:4059"}, 2, "neither host nor port"},
		"listen: another's address":   {[]string{"listen", "tcp://192.0.2.1:4059"}, 1, "192.0.2.1:4059"},
		"listen: another's, UDP":      {[]string{"listen", "dlms+udp://192.0.2.1:4059"}, 1, "192.0.2.1:4059"},
		"listen: unknown key":         {[]string{"listen", "tcp://:0?ek=Hunter2&Hunter2=1"}, 2, "part 2 of the query: unknown key"},
		"listen: ak alone":            {[]string{"listen", "tcp://:0?ak=Hunter2"}, 2, "ek: missing"},
		"listen: bad suite":           {[]string{"listen", "tcp://:0?ek=Hunter2&suite=3"}, 2, "suite: want 0, 1 or 2"},
		"listen: a key that is none":  {[]string{"listen", "tcp://:0?ek=Hunter2"}, 1, "ek: want 32 hexadecimal digits"},
		"listen: no file with a key":  {[]string{"listen", "tcp://:0?ek=file:/nonexistent"}, 1, "/nonexistent"},
		"listen: for less than no":    {[]string{"listen", "tcp://:0", "-for", "-1s"}, 2, "-for"},
		"listen: no such zone":        {[]string{"listen", "tcp://:0", "-zone", "Local"}, 2, "-zone"},
		"listen: credentials in host": {[]string{"listen", "tcp://u:Hunter2@h"}, 2, "credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.args[0] != "listen" {
				c.args = append(c.args, "-control", filepath.Join(t.TempDir(), "none"))
			}
			code, out, errOut := cmdline(t, c.args...)
			if code != c.code || !strings.Contains(errOut, c.want) || strings.Contains(errOut+out, "Hunter2") {
				t.Errorf("exit code %d, want %d and %q in:\n%s%s", code, c.code, c.want, out, errOut)
			}
		})
	}
}
