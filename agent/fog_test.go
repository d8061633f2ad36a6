package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gridgate/agent/uplink"
	"gridgate/configs"
	"gridgate/internal/meter"
)

func TestTheUplinksConfiguration(t *testing.T) {
	t.Parallel()
	cfg, err := configs.Parse("t.yaml", []byte(`
version: 1
site: s
gateway: g
uplink:
  broker: tcp://a
  brokers: ["tcp://b:1"]
  interfaces: [eth0, wwan0]
  lanes: {interval: {latency: 15m, windows: ["22:00-06:00"]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{opts: Options{Getenv: os.Getenv}}
	_, paths, err := a.mqttOptions(cfg.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	want := []uplink.Path{{Address: "a:1883", Interface: "eth0"}, {Address: "b:1", Interface: "eth0"}, {Address: "a:1883", Interface: "wwan0"}, {Address: "b:1", Interface: "wwan0"}}
	if d := cmp.Diff(want, paths); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	got := schedules(cfg.Uplink.Lanes)
	if d := cmp.Diff(uplink.Schedule{Latency: 15 * time.Minute, Windows: []uplink.Window{{From: 22 * time.Hour, To: 6 * time.Hour}}}, got[meter.Interval]); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if d := cmp.Diff(uplink.Schedule{}, got[meter.Billing]); d != "" {
		t.Error(d)
	}
}

func TestTheLedger(t *testing.T) {
	t.Parallel()
	l := ledger(t.TempDir())
	if b, err := l.Load(); b != nil || err != nil {
		t.Errorf("at first %q, %v", b, err)
	}
	for _, text := range []string{`{"day":"2026-01-01"}`, `{}`} {
		if err := l.Save([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if b, err := l.Load(); string(b) != text+"\n" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
	if files, _ := os.ReadDir(string(l)); len(files) != 1 {
		t.Errorf("%d files", len(files))
	}
	if err := ledger(filepath.Join(string(l), "none")).Save(nil); err == nil {
		t.Error("saved where nothing is")
	}
}
