package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gridgate/internal/mqtt"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	f := New(time.UTC)
	topic := mqtt.Topic{Site: "north", Gateway: "gw-1", Kind: mqtt.ConfigReport}
	// The example of docs/formats.md.
	const told = `{"time":"2026-11-22T17:15:12Z","agent":"1.0.0","trust":1,
	 "running":{"sha256":"c1db","layers":[{"target":"north/gw-7","version":6,"sha256":"7055"}]},
	 "trial":{"kind":"config","target":"north/gw-7","version":7,"sha256":"be76","step":"proving"},
	 "last":{"kind":"config","target":"north/gw-7","version":6,"sha256":"aa01","outcome":"kept","changes":["line 10.0.0.7:4059 added"]}}`
	if err := f.Config(topic, []byte(told)); err != nil {
		t.Fatal(err)
	}
	if n := len(f.Gateways(time.Now(), false)); n != 0 {
		t.Errorf("it has put %d gateways on the list", n)
	}
	if err := f.State(topic, []byte(`{"state":"online"}`), true, time.Now()); err != nil {
		t.Fatal(err)
	}
	all := f.Gateways(time.Now(), false)
	if len(all) != 1 || all[0].State != "online" || all[0].Orders == nil {
		t.Fatalf("%+v", all)
	}
	c := all[0].Orders
	if c.Trust != 1 || len(c.Layers) != 1 || c.Layers[0].Version != 6 || c.Trial.Step != "proving" || c.Trial.Version != 7 || c.Last.Outcome != "kept" {
		t.Errorf("%+v", c)
	}
	for _, bad := range []string{
		`{`, `[]`, `{"trust":-1}`, `{"last":{"outcome":"` + strings.Repeat("x", 201) + `"}}`, `{"last":{"reason":"` + strings.Repeat("x", 4001) + `"}}`,
		`{"running":{"layers":[` + strings.Repeat("{},", maxLayers) + `{}]}}`, fmt.Sprintf(`{"agent":"%0*d"}`, maxConfig, 0),
	} {
		if err := f.Config(topic, []byte(bad)); err == nil {
			t.Errorf("it takes %.60s", bad)
		}
	}
	if f.Gateways(time.Now(), false)[0].Orders != c {
		t.Error("what was wrong has changed it")
	}
	if err := f.Config(topic, nil); err != nil || f.Gateways(time.Now(), false)[0].Orders != nil {
		t.Errorf("taken back: %v", err)
	}
	if err := f.Config(topic, []byte(`{"trust":0}`)); err != nil || f.Gateways(time.Now(), false)[0].Orders.Layers == nil {
		t.Errorf("without orders: %v", err)
	}
}
