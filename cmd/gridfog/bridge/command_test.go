package bridge

import (
	"encoding/hex"
	"strings"
	"testing"
)

// What the npm package sparkplug-payload 1.0.3 writes for a rebirth request.
const rebirthHex = "0880d0eab6b733" + "121a" + "0a144e6f646520436f6e74726f6c2f52656269727468" + "200b" + "7001"

func TestCommands(t *testing.T) {
	t.Parallel()
	rebirth, err := hex.DecodeString(rebirthHex)
	if err != nil {
		t.Fatal(err)
	}
	metric := func(m Metric) []byte { return appendPayload(nil, 1, noSeq, []Metric{m}) }
	for name, c := range map[string]struct {
		payload []byte
		want    bool
	}{
		"rebirth": {rebirth, true},
		"with others": {appendPayload(nil, 1, noSeq, []Metric{
			{Name: "Node Control/Reboot", Type: TypeBoolean, Bits: 1}, {Name: rebirthName, Type: TypeBoolean, Bits: 1}, {Alias: 3, Type: TypeString, Data: "x"},
		}), true},
		"false":        {metric(Metric{Name: rebirthName, Type: TypeBoolean}), false},
		"no value":     {metric(Metric{Name: rebirthName, Type: TypeBoolean, Null: true}), false},
		"another":      {metric(Metric{Name: "Node Control/Reboot", Type: TypeBoolean, Bits: 1}), false},
		"longer name":  {metric(Metric{Name: rebirthName + "s", Type: TypeBoolean, Bits: 1}), false},
		"nothing":      {nil, false},
		"no metrics":   {[]byte{8, 1}, false},
		"wrong number": {metric(Metric{Name: rebirthName, Type: TypeUInt64, Bits: 1}), false},
	} {
		if got, err := asksForRebirth(c.payload); got != c.want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for n := range rebirth {
		if asks, _ := asksForRebirth(rebirth[:n]); asks {
			t.Errorf("asked by %d of %d bytes", n, len(rebirth))
		}
	}
	if _, err := asksForRebirth(appendPayload(nil, 1, noSeq, make([]Metric, maxMetrics+1))); err == nil {
		t.Error("any number of metrics is taken")
	}
}

// What is taken for a request has its name and the word true; nothing else
// makes it panic.
func FuzzCommand(f *testing.F) {
	b, _ := hex.DecodeString(rebirthHex)
	f.Add(b)
	f.Add(appendPayload(nil, 1, 7, everything()))
	f.Fuzz(func(t *testing.T, payload []byte) {
		asks, err := asksForRebirth(payload)
		if asks && (err != nil || !strings.Contains(string(payload), rebirthName)) {
			t.Errorf("%x asks for births: %v", payload, err)
		}
	})
}

func TestHostState(t *testing.T) {
	t.Parallel()
	var h hostFollower
	for _, c := range []struct {
		payload       string
		online, bad   bool
		wantTimestamp int64
	}{
		{`{"online":false,"timestamp":5}`, false, false, 5},
		{`{"online":true,"timestamp":5}`, true, false, 5},
		{`{"timestamp":4,"online":false}`, true, false, 5}, // the will of an earlier connection
		{`ONLINE`, true, true, 5},                          // Sparkplug 2.2
		{`{"online":true}`, true, true, 5},
		{`{"online":"no","timestamp":9}`, true, true, 5},
		{`{"online":false,"timestamp":1e99}`, true, true, 5},
		{`{"online":false,"timestamp":5}`, false, false, 5},
		{`{"online":true,"timestamp":1700000000000,"more":[]}`, true, false, 1_700_000_000_000},
		{``, false, false, 1_700_000_000_000}, // taken back
	} {
		before := h.online
		changed, err := h.take([]byte(c.payload))
		if h.online != c.online || (err != nil) != c.bad || h.timestamp != c.wantTimestamp || changed != (before != h.online) {
			t.Errorf("%s: %+v, %v, %v", c.payload, h, changed, err)
		}
	}
}
