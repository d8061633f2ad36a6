package configs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// validator reads documents as PyYAML does, validates them as python3-jsonschema
// does, and says of each what is wrong with it.
const validator = `
import json, sys, yaml, jsonschema
task = json.load(sys.stdin)
jsonschema.Draft202012Validator.check_schema(task["schema"])
v = jsonschema.Draft202012Validator(task["schema"])
def verdict(text):
    return "; ".join("%s: %s" % ("/".join(map(str, e.absolute_path)), e.message) for e in v.iter_errors(yaml.safe_load(text)))
json.dump([verdict(text) for text in task["documents"]], sys.stdout)
`

// verdicts says what is wrong with documents by the schema; empty: nothing.
func verdicts(t *testing.T, documents []string) (wrong []string) {
	t.Helper()
	schema, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(map[string]any{"schema": json.RawMessage(schema), "documents": documents})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", validator)
	cmd.Stdin = bytes.NewReader(in)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3: %v (scripts/setup.sh installs what the tests need)\n%s", err, errOut.String())
	}
	if err := json.Unmarshal(out, &wrong); err != nil {
		t.Fatal(err)
	}
	return wrong
}

// TestSchema: another program takes what the agent takes, and refuses, by the
// schema alone, what the agent refuses.
func TestSchema(t *testing.T) {
	t.Parallel()
	const head = "version: 1\nsite: s\ngateway: g\n"
	const full = head + "uplink: {broker: \"tcp://h\"}\n"
	const group = full + "groups:\n  g: "
	good := []string{
		string(Reference()), string(Demo()), full,
		head + "uplink: {brokers: [\"tcp://h\", \"tcp://i\"]}\n",
		group + "{lane: instant, every: 1m30s, channels: [1-0:1.8.0]}\nmeters:\n  - {id: a, serial: 00012, groups: [g], url: \"modbus+tcp://h?unit=1&model=eastron-sdm630\"}\n",
		full + "meters:\n  - {id: 7, groups: auto, url: \"dlms+wrapper://h?client=16\"}\n",
	}
	wrong := []string{
		head, "site: s\ngateway: g\nuplink: {broker: \"tcp://h\"}\n", "version: 2\nsite: s\ngateway: g\nuplink: {broker: \"tcp://h\"}\n",
		"version: \"1\"\nsite: s\ngateway: g\nuplink: {broker: \"tcp://h\"}\n", "version: 1\nsite: A b\ngateway: g\nuplink: {broker: \"tcp://h\"}\n",
		"version: 1\nsite: s\ngateway: [g]\nuplink: {broker: \"tcp://h\"}\n", "version: 1\nsite: s\ngateway:\nuplink: {broker: \"tcp://h\"}\n",
		head + "uplink: {}\n", head + "uplink: tcp://h\n", head + "uplink: {broker: \"tcp://h\", brokr: x}\n",
		full + "timezone: UTC\n", full + "buffer: /var\n", full + "buffer: {path: ''}\n", full + "buffer: {max_size: 32}\n", full + "buffer: {max_size: 32 MiB}\n",
		full + "buffer: {max_age: 31}\n", full + "buffer: {max_age: ''}\n", full + "buffer: {max_age: -1d}\n", full + "buffer: {lanes: {urgent: {max_age: 1d}}}\n",
		full + "poll: {parallel: 0}\n", full + "poll: {parallel: 257}\n", full + "poll: {parallel: 1.5}\n", full + "poll: {parallel: many}\n",
		full + "mains: {voltage: 20}\n", full + "time: {servers: ntp}\n", full + "time: {discipline: chrony}\n", full + "time: {servers: [a,b,c,d,e,f,g,h,i]}\n",
		full + "control: {socket: " + strings.Repeat("x", 108) + "}\n", full + "trust: {prove: 5}\n", full + "trust: {groups: [A]}\n",
		full + "groups: []\n", full + "groups: {A: {lane: instant, every: 1m, channels: [1-0:1.8.0]}}\n",
		group + "{every: 1m, channels: [1-0:1.8.0]}\n", group + "{lane: instant, channels: [1-0:1.8.0]}\n", group + "{lane: fast, every: 1m, channels: [1-0:1.8.0]}\n",
		group + "{lane: interval, every: 1m}\n", group + "{lane: interval, every: 1m, channels: [1-0:1.8.0], profile: 1-0:99.1.0}\n",
		group + "{lane: instant, every: 1m, channels: 1-0:1.8.0}\n", group + "{lane: instant, every: 1m, align: maybe, channels: [1-0:1.8.0]}\n",
		full + "meters: {}\n", full + "meters: [{id: a}]\n", full + "meters: [{url: \"dlms+wrapper://h?client=16\"}]\n",
		full + "meters: [{id: a, groups: [], url: \"dlms+wrapper://h?client=16\"}]\n", full + "meters: [{id: a, groups: all, url: \"dlms+wrapper://h?client=16\"}]\n",
		full + "meters: [{id: a, url: \"dlms+wrapper://h?client=16\", timeout: 5}]\n", full + "meters: [{id: a, url: \"dlms+wrapper://h?client=16\", colour: red}]\n",
	}
	for i, v := range verdicts(t, good) {
		if _, err := Parse("good", []byte(good[i])); v != "" || err != nil {
			t.Errorf("%.300s\nthe schema: %s\nthe agent: %v", good[i], v, err)
		}
	}
	for i, v := range verdicts(t, wrong) {
		if _, err := Parse("wrong", []byte(wrong[i])); v == "" || err == nil {
			t.Errorf("%s\nthe schema: %q\nthe agent: %v", wrong[i], v, err)
		}
	}
}

// TestSchemaHasEveryKey: with its type, and with the default where the reference
// has one.
func TestSchemaHasEveryKey(t *testing.T) {
	t.Parallel()
	data, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	s := &schema{root: map[string]any{}}
	if err := json.Unmarshal(data, &s.root); err != nil {
		t.Fatal(err)
	}
	for _, path := range paths("", documentFields()) {
		above, _, below := cutLast(path)
		if below && len(s.at(above)) == 0 {
			continue // a reader that tells only that there is something
		}
		before := fmt.Sprint(s.root)
		if s.at(path); fmt.Sprint(s.root) != before { // at makes what is missing
			t.Errorf("%s is missing", path)
		}
	}
	for path, want := range map[string]any{
		"time_zone": "UTC", "intake.window": "4m", "poll.parallel": 16.0, "uplink.delta": false, "trust.prove": "15m", "buffer.lanes.instant.max_age": "31d",
		"mains.voltage": nil, "site": nil, "time.modem": nil, "uplink.password": nil,
	} {
		if got := s.at(path)["default"]; got != want {
			t.Errorf("%s: the default is %v, want %v", path, got, want)
		}
	}
}

// cutLast separates the last key of a path.
func cutLast(path string) (above, key string, ok bool) {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return strings.TrimSuffix(path[:i], ".*"), path[i+1:], true
	}
	return "", path, false
}
