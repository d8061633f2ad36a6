package configs

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

const mergeBase = `version: 1
# the site
site: s
gateway: g
uplink:
  broker: tcp://127.0.0.1:1883
  keep_alive: 5m
groups:
  fast: {lane: instant, every: 1m, channels: ["1-0:32.7.0"]}
meters:
  - id: a
    url: dlms+wrapper://127.0.0.1:4059?server=1
    groups: [fast]
  - id: b
    url: dlms+wrapper://127.0.0.1:4060?server=1
    serial: "0017"
    groups: [fast]
`

func merged(t *testing.T, layers ...string) string {
	t.Helper()
	var all []Layer
	for _, l := range append([]string{mergeBase}, layers...) {
		all = append(all, Layer{Name: "layer.yaml", Data: []byte(l)})
	}
	got, err := Merge(all...)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Merge(all...)
	if err != nil || !bytes.Equal(got, again) {
		t.Errorf("the same layers give another document: %v", err)
	}
	return string(got)
}

func TestMerge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		layers   []string
		has, not []string
	}{
		"nothing on it":     {nil, []string{"site: s\n", `serial: "0017"`}, []string{"# the site"}},
		"a value":           {[]string{"uplink: {keep_alive: 9m}\n"}, []string{"keep_alive: 9m", "broker: tcp://"}, []string{"5m"}},
		"a key taken away":  {[]string{"uplink:\n  keep_alive:\n"}, []string{"broker: tcp://"}, []string{"keep_alive"}},
		"a new key":         {[]string{"mains: {voltage: 230}\n"}, []string{"voltage: 230"}, nil},
		"the last wins":     {[]string{"uplink: {keep_alive: 9m}\n", "uplink: {keep_alive: 10m}\n"}, []string{"keep_alive: 10m"}, []string{"9m"}},
		"null in a new key": {[]string{"mains: {voltage: 230, frequency: }\n"}, []string{"voltage: 230"}, []string{"frequency"}},
		"a meter's key": {
			[]string{"meters:\n  - {id: b, serial: \"0018\"}\n"},
			[]string{"id: a", "id: b", "127.0.0.1:4060", `serial: "0018"`},
			[]string{"0017"},
		},
		"a meter more": {
			[]string{"meters:\n  - {id: c, url: \"dlms+wrapper://127.0.0.1:4061\", groups: [fast]}\n"},
			[]string{"id: a", "id: b", "id: c"},
			nil,
		},
		"a meter less":     {[]string{"meters:\n  - {id: a, remove: true}\n"}, []string{"id: b"}, []string{"id: a", "remove"}},
		"a list is a list": {[]string{"groups: {fast: {channels: [\"1-0:52.7.0\"]}}\n"}, []string{"1-0:52.7.0"}, []string{"1-0:32.7.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := merged(t, c.layers...)
			for _, want := range c.has {
				if !strings.Contains(got, want) {
					t.Errorf("%q is missing in\n%s", want, got)
				}
			}
			for _, n := range c.not {
				if strings.Contains(got, n) {
					t.Errorf("%q is in\n%s", n, got)
				}
			}
			if _, err := Parse("merged.yaml", []byte(got)); err != nil {
				t.Errorf("%v in\n%s", err, got)
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	t.Parallel()
	for layer, want := range map[string]string{
		"":                                     "layer.yaml: the file is empty",
		"- a\n":                                "want keys with values",
		"a: 1\na: 2\n":                         "layer.yaml:2: a: the key is also at line 1",
		"meters:\n  - {serial: x}\n":           "layer.yaml:2: meters[0].id: missing",
		"meters: [x]\n":                        "meters[0]: is a single value",
		"meters:\n  - {id: z, remove: true}\n": "no such meter",
		"meters:\n  - {id: a, remove: yes}\n":  "want true",
		"meters:\n  - {id: a, remove: true, serial: x}\n": "and nothing else",
		"uplink: &a {keep_alive: 9m}\n":                   "anchors",
	} {
		_, err := Merge(Layer{"base.yaml", []byte(mergeBase)}, Layer{"layer.yaml", []byte(layer)})
		var problems Problems
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", layer, err, want)
		}
	}
	if _, err := Merge(); err == nil {
		t.Error("nothing merges")
	}
}

// TestMergeKeepsDocuments: a document by itself says the same after it.
func TestMergeKeepsDocuments(t *testing.T) {
	t.Parallel()
	for _, doc := range [][]byte{Reference(), Demo()} {
		was, err := Parse("was.yaml", doc)
		if err != nil {
			t.Fatal(err)
		}
		data, err := Merge(Layer{"was.yaml", doc})
		if err != nil {
			t.Fatal(err)
		}
		is, err := Parse("is.yaml", data)
		if err != nil {
			t.Fatalf("%v in\n%s", err, data)
		}
		if d := Compare(was, is); !d.Empty() {
			t.Errorf("they differ: %+v", d)
		}
	}
}

func FuzzMerge(f *testing.F) {
	f.Add(mergeBase, "meters:\n  - {id: a, remove: true}\n")
	f.Add(mergeBase, "uplink: {keep_alive: }\n")
	f.Add("00000A: [000A]", ": 00")
	f.Fuzz(func(t *testing.T, base, top string) {
		got, err := Merge(Layer{"base", []byte(base)}, Layer{"top", []byte(top)})
		if err != nil {
			return
		}
		if again, err := Merge(Layer{"got", got}, Layer{"top", []byte(top)}); err == nil && !bytes.Equal(again, got) && !strings.Contains(top, "remove") {
			t.Errorf("laid on twice it is another:\n%s\n%s", got, again)
		}
	})
}
