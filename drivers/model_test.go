package drivers

import (
	"slices"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/drivers/address"
	"gridgate/drivers/cosem"
)

// What an address says goes before what its model says.
func TestModelOfADLMSMeter(t *testing.T) {
	t.Parallel()
	counter, other := obis.Code{0, 0, 43, 1, 7, 255}, obis.Code{0, 0, 43, 1, 9, 255}
	m := &cosem.Model{Info: 128, Window: 1, Release: true, Quirks: dlms.Quirks{ListMax: 3, CounterObject: counter}}
	m.Events.Bits = map[obis.Code]map[uint8]string{{0, 0, 97, 98, 0, 255}: {0: "clock-invalid"}}
	for query, want := range map[string]struct {
		info, window int
		counters     []obis.Code
	}{
		"client=1":                   {128, 1, []obis.Code{counter}},
		"client=3&info=512&window=3": {512, 3, []obis.Code{other}},
		"client=2":                   {128, 1, nil},
	} {
		a, err := address.Parse("dlms+hdlc://h:1?" + query)
		if err != nil {
			t.Fatal(err)
		}
		switch a.Client {
		case 2:
			a.Security.CounterHidden = true
		case 3:
			a.Security.Counter = other
		}
		c := Config{Address: a, DLMS: m}
		cfg, err := cosemConfig(c)
		if err != nil {
			t.Fatal(err)
		}
		if h := hdlcOf(c); h.Info != want.info || h.Window != want.window {
			t.Errorf("%s: %+v", query, h)
		}
		if cfg.Quirks != m.Quirks || !cfg.Release || cfg.Events != &m.Events || !slices.Equal(cfg.CounterObjects, want.counters) {
			t.Errorf("%s: %+v", query, cfg.CounterObjects)
		}
		if k, err := Known(c); err != nil || k.Events != &m.Events {
			t.Errorf("%s: who pushes: %v", query, err)
		}
	}
	a, err := address.Parse("dlms+wrapper://h?model=idis&timeout=1s")
	if err != nil || a.Model != "idis" || a.Timeout != time.Second {
		t.Fatalf("%v %+v", err, a)
	}
	if again, err := address.Parse(a.String()); err != nil || again != a {
		t.Errorf("%s: %v", a, err)
	}
}
