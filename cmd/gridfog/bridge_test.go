package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBridgeUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "want senml or sparkplug"},
		{[]string{"opc"}, "want senml or sparkplug"},
		{[]string{"senml", "sparkplug"}, "want senml or sparkplug"},
		{[]string{"senml", "-broker", "http://x"}, "-broker"},
		{[]string{"senml", "-to", "http://x"}, "-to"},
		{[]string{"senml", "-ca", "x"}, "mqtts://"},
		{[]string{"senml", "-session", ""}, "-session"},
		{[]string{"senml", "-site", "North"}, "-site"},
		{[]string{"senml", "-base", "a b"}, "-base"},
		{[]string{"senml", "-prefix", "a/#"}, "-prefix"},
		{[]string{"senml", "-prefix", "gridgate/1"}, "where gateways are"},
		{[]string{"senml", "-primary", "scada"}, "-primary is not for senml"},
		{[]string{"sparkplug", "-out", "x"}, "-out is not for sparkplug"},
		{[]string{"sparkplug", "-primary", "a/b"}, "reserved"},
		{[]string{"sparkplug", "-rate", "0"}, "-rate"},
		{[]string{"sparkplug", "-historical-after", "0s"}, "-historical-after"},
	} {
		if out, text, code := gridfog(t, "", append([]string{"bridge"}, c.args...)...); code != 2 || out != "" || !strings.Contains(text, c.want) {
			t.Errorf("%v: %d %s%s, want %q", c.args, code, out, text, c.want)
		}
	}
	if out, _, code := gridfog(t, "", "bridge", "-h"); code != 0 || !strings.Contains(out, "example:\n  gridfog bridge senml") {
		t.Errorf("-h: %d\n%s", code, out)
	}
}

func TestBridgeEndsByItselfWithoutABroker(t *testing.T) {
	t.Parallel()
	out, text, code := gridfog(t, "", "bridge", "sparkplug", "-broker", "mqtt://127.0.0.1:1", "-primary", "scada", "-for", "300ms")
	if code != 0 || !strings.Contains(out, "told 0 rows in 0 messages") || strings.Count(text, "connection refused") != 2 {
		t.Errorf("%d\n%s\n%s", code, out, text)
	}
	path := filepath.Join(t.TempDir(), "packs")
	out, text, code = gridfog(t, "", "bridge", "senml", "-broker", "mqtt://127.0.0.1:1", "-out", path, "-for", "300ms")
	if code != 0 || !strings.Contains(out, "told 0 rows in 0 packs") || strings.Count(text, "connection refused") != 1 {
		t.Errorf("%d\n%s\n%s", code, out, text)
	}
	if b, err := os.ReadFile(path); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	_, text, code = gridfog(t, "", "bridge", "senml", "-out", filepath.Join(path, "x"), "-for", "300ms")
	if code != 1 || !strings.Contains(text, "output: ") {
		t.Errorf("%d\n%s", code, text)
	}
}
