package order_test

import (
	"errors"
	"strings"
	"testing"

	"gridgate/agent/order"
)

const commandHead = "gridgate: 1\nkind: command\ntarget: s/g\nid: c-1\nnot_after: 2030-01-01T00:00:00Z\n---\n"

func TestDecodeCommand(t *testing.T) {
	t.Parallel()
	type head struct {
		Action string   `yaml:"action"`
		Meters []string `yaml:"meters"`
	}
	type with struct {
		From  string `yaml:"from"`
		Count int    `yaml:"count"`
	}
	for _, c := range []struct{ payload, want string }{
		{"action: a\nmeters: [m]\nwith: {from: 2026-11-22T10:00:00Z, count: 3}\n", ""},
		{"action: a\nmeters: [m]\nwith:\n  from: 2026-11-22T10:00:00Z\n  count: 3\n", ""},
		{"action: a\nhurry: 1\n", "line 8: \"hurry\" is no key that belongs there"},
		{"action: a\nwith: {hurry: 1}\n", "line 8"},
		{"action: a\nwith: {count: many}\n", "line 8"},
		{"action: a\nwith: [1]\n", "want keys with values"},
		{"action: a\nwith: {}\nwith: {}\n", "line 9"},
		{"action: a\naction: b\n", "line 8"},
		{"with: {count: 1, count: 2}\naction: a\n", "line 7"},
		{"- a\n", "want keys with values"},
		{"", "nothing stands there"},
	} {
		d, err := order.ReadBody([]byte(commandHead + c.payload))
		if err != nil {
			t.Fatal(err)
		}
		var h head
		var w with
		decode, err := d.DecodeCommand(&h)
		if err == nil {
			err = decode(&w)
		}
		switch {
		case c.want == "" && (err != nil || h.Action != "a" || len(h.Meters) != 1 || w != with{"2026-11-22T10:00:00Z", 3}):
			t.Errorf("%q: %+v, %+v, %v", c.payload, h, w, err)
		case c.want != "" && (!errors.Is(err, order.ErrMalformed) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: %v; want %q", c.payload, err, c.want)
		}
	}
	d, err := order.ReadBody([]byte(commandHead + "action: a\n"))
	if err != nil {
		t.Fatal(err)
	}
	var w with
	if decode, err := d.DecodeCommand(new(head)); err != nil || decode(&w) != nil || w != (with{}) {
		t.Errorf("without with: %+v, %v", w, err)
	}
}

func TestShownID(t *testing.T) {
	t.Parallel()
	signed := string(sealed(commandHead+"action: a\n", key(t)))
	for text, want := range map[string]string{
		signed:                                  "c-1",
		commandHead:                             "c-1",
		"id: 'a-b'\n":                           "a-b",
		"id: A\nid: b\n":                        "",
		"kind: command\n---\nid: x":             "",
		"":                                      "",
		"id: " + strings.Repeat("x", 33) + "\n": "",
		strings.Repeat("a: 1\n", 1000) + "id: late\n":                        "",
		strings.Replace(signed, "signature from", "another", 1):              "c-1",
		"untrusted comment: x\nid: no\n\nid: yes\n" + strings.Repeat("y", 9): "yes",
	} {
		if got := order.ShownID([]byte(text)); got != want {
			t.Errorf("%.60q: %q; want %q", text, got, want)
		}
	}
}

func FuzzShownID(f *testing.F) {
	f.Add([]byte(commandHead))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id := order.ShownID(b); len(id) > 32 || strings.ContainsAny(id, "/+# \n\x00") {
			t.Errorf("%q", id)
		}
	})
}

func TestTrustThatWantsTwo(t *testing.T) {
	t.Parallel()
	k := key(t)
	body := func(limits string) []byte {
		return []byte("gridgate: 1\nkind: trust\ntarget: '*'\nversion: 1\n---\nroles:\n  root: {keys: [" + public(k) + "]}\nlimits: " + limits + "\n")
	}
	tr, err := order.ReadTrust(body("{two_signatures: [disconnect, output]}"))
	if err != nil || !tr.WantsTwo("output") || tr.WantsTwo("read") {
		t.Errorf("%+v, %v", tr, err)
	}
	if _, err := order.ReadTrust(body("{two_signatures: ['no name']}")); !errors.Is(err, order.ErrMalformed) {
		t.Error(err)
	}
}
