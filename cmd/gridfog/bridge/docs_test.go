package bridge_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// block is the first fenced block of docs/bridge.md whose fence has these words.
func block(t *testing.T, words string) string {
	t.Helper()
	doc, err := os.ReadFile("../../../docs/bridge.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(doc), "\n```"+words+"\n")
	text, _, end := strings.Cut(rest, "\n```")
	if !ok || !end {
		t.Fatalf("docs/bridge.md has no block %q", words)
	}
	return text
}

func TestTheDocumentsPackIsSenML(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/resolve.py")
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(block(t, "json"), "\n", "") + "\n")
	out, err := cmd.CombinedOutput()
	const want = `gridgate/north/gw-7/house-1/instant/1-0:1.8.0 1767225600250 Wh v 1203450
gridgate/north/gw-7/house-1/instant/1-0:32.7.0 1767225600250 V v 230.1
gridgate/north/gw-7/house-1/interval/900s/1-0:1.29.0 1767225600000 Wh v 312.5
`
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s, want\n%s", err, out, want)
	}
}

// TestTheDocumentsFlowReadsSenML runs the function of the Node-RED flow.
func TestTheDocumentsFlowReadsSenML(t *testing.T) {
	t.Parallel()
	var flow []struct{ Type, Func string }
	if err := json.Unmarshal([]byte(block(t, "json node-red")), &flow); err != nil {
		t.Fatal(err)
	}
	function := ""
	for _, node := range flow {
		if node.Type == "function" {
			function = node.Func
		}
	}
	const script = `const [out] = new Function('msg', process.argv[1])({payload: JSON.parse(process.argv[2])}); console.log(JSON.stringify(out));`
	pack := `[{"bn":"a/","bt":1767225600.25,"n":"x","u":"Wh","v":7},{"n":"y","t":1.5,"vb":false},{"bn":"b/","n":"z/quality","vs":"estimated"}]`
	out, err := exec.CommandContext(t.Context(), "node", "-e", script, "--", function, pack).CombinedOutput()
	const want = `[{"topic":"a/x","time":"2026-01-01T00:00:00.250Z","unit":"Wh","payload":7},{"topic":"a/y","time":"2026-01-01T00:00:01.750Z","unit":"","payload":false},` +
		`{"topic":"b/z/quality","time":"2026-01-01T00:00:00.250Z","unit":"","payload":"estimated"}]` + "\n"
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s, want\n%s", err, out, want)
	}
}

// documentedHost runs the host of docs/bridge.md against the bridge.
func documentedHost(t *testing.T, gridfog string) {
	broker := mqtttest.Mosquitto(t, mqtttest.Config{Lines: []string{"log_type all"}})
	code := strings.ReplaceAll(block(t, "js"), "mqtt://127.0.0.1:1883", "mqtt://"+broker.Address)
	dir, err := filepath.Abs(filepath.Join("testdata", "js"))
	if err != nil {
		t.Fatal(err)
	}
	host := proctest.Start(t, nil, "node", "--input-type=module", "--eval", strings.ReplaceAll(code,
		"'sparkplug-client'", "'file://"+dir+"/node_modules/sparkplug-client/index.js'"))
	proctest.Until(t, "the host has subscribed", func() bool { return strings.Contains(broker.Log(), "Sending SUBACK to mine") })
	g := newGateway(t, broker)
	startBridge(t, gridfog, broker, "sparkplug")
	start := time.Now().Add(time.Minute).UTC().Truncate(time.Second)
	for i, want := range []string{"0 ", "10 "} { // the second is live: the first was born
		at := start.Add(time.Duration(i) * time.Second)
		proctest.Until(t, "the bridge listens", func() bool { return strings.Contains(broker.Log(), "Sending SUBACK to gridfog-sparkplug-in-1") })
		g.send("house-1", at, uint64(i))
		host.Await("house-1 instant/1-0:1.8.0 " + want + at.Format("2006-01-02T15:04:05.000Z"))
	}
	host.Await(" false")
}
