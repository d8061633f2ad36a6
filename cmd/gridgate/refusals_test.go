package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"gridgate/buffer/state"
	"gridgate/internal/cli"
)

// associations counts how often a meter was shown credentials.
func associations(t *testing.T) (at string, count *atomic.Int32) {
	t.Helper()
	count = &atomic.Int32{}
	o := profileMeter(t)
	o.Tamper = func(request, frame []byte) []byte {
		if request[0] == 0x60 {
			count.Add(1)
		}
		return frame
	}
	return "dlms+wrapper://" + serveMeter(t, o), count
}

// TestToolsStopAfterTwoRefusals: every tool counts, in a place that all share,
// and -force goes on. Other credentials are not meant.
func TestToolsStopAfterTwoRefusals(t *testing.T) {
	t.Parallel()
	for _, agent := range []bool{false, true} {
		at, count := associations(t)
		dir := t.TempDir()
		common := []string{"-counters", dir, "-control", filepath.Join(dir, "none")}
		if agent {
			s, err := state.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			common = []string{"-control", serveCounters(t, s, dir)}
		}
		const wrong, right = "?client=17&auth=lls&password=wrong-one", "?client=17&auth=lls&password=12345678"
		run := func(args ...string) (int, string) {
			code, _, errOut := cmdline(t, append(args, common...)...)
			return code, errOut
		}
		for i, args := range [][]string{{"read", at + wrong, "1-0:1.8.0"}, {"objects", at + wrong}} {
			if code, errOut := run(args...); code != 1 || !strings.Contains(errOut, "wrong password?") || int(count.Load()) != i+1 {
				t.Fatalf("agent %v: try %d: %d, %s", agent, i+1, code, errOut)
			}
		}
		for _, args := range [][]string{{"read", at + wrong, "1-0:1.8.0"}, {"objects", at + wrong}, {"profile", at + wrong, "1-0:99.1.0"}} {
			code, errOut := run(args...)
			if code != 1 || !strings.Contains(errOut, "refused client 17 2 times with these credentials") || !strings.Contains(errOut, "-force") || count.Load() != 2 {
				t.Errorf("agent %v: %s after two refusals: %d, %d associations, %s", agent, args[0], code, count.Load(), errOut)
			}
			if strings.Contains(errOut, "wrong-one") {
				t.Errorf("the password is printed: %s", errOut)
			}
		}
		if code, errOut := run("read", at+wrong, "1-0:1.8.0", "-force"); code != 1 || !strings.Contains(errOut, "wrong password?") || count.Load() != 3 {
			t.Errorf("agent %v: -force: %d, %s", agent, code, errOut)
		}
		if code, errOut := run("read", at+right, "1-0:1.8.0"); code != 0 {
			t.Errorf("agent %v: with the right password: %d, %s", agent, code, errOut)
		}
		code, out, errOut := cmdline(t, append([]string{"counters", at + wrong, "-json"}, common...)...)
		if code != 0 || out != `{"meter":"meter","title":"","key":"","next":null,"received":[],"refused":3}`+"\n" {
			t.Errorf("agent %v: %d, %s%s", agent, code, out, errOut)
		}
	}
}

// TestAChangedVariableIsAnotherPassword: the reference is the same, and what it
// leads to is not.
func TestAChangedVariableIsAnotherPassword(t *testing.T) {
	t.Parallel()
	at, _ := associations(t)
	dir := t.TempDir()
	read := func(password string) (int, string) {
		t.Helper()
		var out, errOut bytes.Buffer
		env := cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Getenv: func(name string) string {
			if name == "METER_PASSWORD" {
				return password
			}
			return ""
		}}
		code := program().Run(t.Context(), env, []string{
			"read", at + "?client=17&auth=lls&password=env:METER_PASSWORD", "1-0:1.8.0", "-counters", dir, "-control", filepath.Join(dir, "none"),
		})
		return code, errOut.String()
	}
	for range 2 {
		read("wrong-one")
	}
	if code, errOut := read("wrong-one"); code != 1 || !strings.Contains(errOut, "2 times with these credentials") {
		t.Errorf("%d, %s", code, errOut)
	}
	if code, errOut := read("12345678"); code != 0 {
		t.Errorf("with the right value: %d, %s", code, errOut)
	}
	for _, name := range []string{"state.db", "state.db.2"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || bytes.Contains(b, []byte("12345678")) || bytes.Contains(b, []byte("wrong-one")) {
			t.Errorf("%s: a password is in it, or %v", name, err)
		}
	}
}

// TestCountersVerb: what is shown, and what a person accepts.
func TestCountersVerb(t *testing.T) {
	t.Parallel()
	where, dir := securedMeter(t), t.TempDir()
	url := "dlms+wrapper://" + where + "?client=1&auth=gmac&security=authenc&title=4752470000000001&ek=" + testEK + "&ak=" + testAK
	common := []string{"-counters", dir, "-control", filepath.Join(dir, "none")}
	run := func(args ...string) (int, string, string) { return cmdline(t, append(args, common...)...) }
	if code, out, errOut := run("counters", url); code != 0 || !strings.Contains(out, "not used") {
		t.Errorf("before the first use: %d, %s%s", code, out, errOut)
	}
	if code, _, errOut := run("read", url, "0-0:1.0.0"); code != 0 {
		t.Fatalf("%d, %s", code, errOut)
	}
	code, out, errOut := run("counters", url, "-json")
	if code != 0 || !strings.Contains(out, `"title":"4752470000000001"`) || !strings.Contains(out, `"next":66561,"received":[{"title":"4142434445464748","as":"answers","counter":`) {
		t.Fatalf("%d, %s%s", code, out, errOut)
	}
	if code, out, errOut := run("counters", url); code != 0 || !strings.Contains(out, "4142434445464748") || !strings.Contains(out, "66561") || strings.Contains(out, testEK[2:]) {
		t.Errorf("%d, %s%s", code, out, errOut)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"accept", url, "-sent", "5"}, 1, "counters are never set back"},
		{[]string{"accept", url, "-sent", "4294967295"}, 2, "want a number, 0 to 4294967294"},
		{[]string{"accept", url, "-sent", "3000000"}, 0, "counters go on with 3000001"},
		{[]string{"accept", url, "-received", "-from", "00"}, 2, "want 16 hexadecimal digits"},
		{[]string{"accept", url, "-received", "-from", "4142434445464749"}, 1, "nothing was received"},
		{[]string{"accept", url, "-received"}, 0, "the next answer of 4142434445464748 is taken as it is"},
		{[]string{"accept", url}, 2, "want -sent COUNTER or -received"},
		{[]string{"accept", url, "-received", "-sent", "1"}, 2, "want -sent COUNTER or -received"},
		{[]string{url, "-received"}, 2, "are of `gridgate counters accept`"},
		{[]string{}, 2, "want a URL or -config FILE"},
		{[]string{"accept", "dlms+wrapper://" + where + "?client=2&auth=md5&password=x", "-sent", "1"}, 1, "has no keys"},
	} {
		code, out, errOut := run(append([]string{"counters"}, c.args...)...)
		if code != c.code || !strings.Contains(out+errOut, c.want) {
			t.Errorf("%v: %d, %s%s\nwant %d, %q", c.args[:min(1, len(c.args))], code, out, errOut, c.code, c.want)
		}
	}
	if code, out, errOut := run("counters", url, "-json"); code != 0 || !strings.Contains(out, `"next":3000001,"received":[]`) {
		t.Errorf("%d, %s%s", code, out, errOut)
	}
	if code, _, errOut := run("read", url, "0-0:1.0.0"); code != 0 {
		t.Errorf("after the jump was accepted: %d, %s", code, errOut)
	}
}
