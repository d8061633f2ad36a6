package cosem

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

// billed is a meter whose energy register and scaler show what they are told to,
// one after another, and the last for ever.
func billed(t *testing.T, overHDLC bool, values []uint32, scalers []int8) (m *Meter, reads *atomic.Int32) {
	t.Helper()
	reads = &atomic.Int32{}
	scaled := 0
	m1 := dlmstest.NewMeter(dlmstest.Options{Objects: []dlmstest.Object{
		dlmstest.Data(obisOf("0-0:96.1.0"), fixed(axdr.OctetString("A1"))),
		dlmstest.Attributes(3, obisOf("1-0:1.8.0"), map[int8]func() axdr.Value{
			2: func() axdr.Value {
				n := int(reads.Add(1)) - 1
				return axdr.DoubleLongUnsigned(values[min(n, len(values)-1)])
			},
			3: func() axdr.Value {
				s := scalers[min(scaled, len(scalers)-1)]
				scaled++
				return axdr.Structure(axdr.Integer(s), axdr.Enum(30))
			},
		}),
	}})
	r := &rig{serve: m1.Serve}
	cfg := Config{}
	if overHDLC {
		r.serve = func(stream io.ReadWriter) error { return m1.ServeHDLC(stream, dlmstest.Station{}) }
		cfg.HDLC = &HDLC{}
	}
	r.listen(t)
	return r.driver(t, cfg), reads
}

// TestBillsAreReadTwice: what goes into a bill over a line with nothing but
// checks must show itself twice.
func TestBillsAreReadTwice(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		wrapper bool
		lane    meter.Lane
		values  []uint32
		scalers []int8
		want    string // "" is none
		reads   int32
	}{
		"twice alike":                {false, meter.Billing, []uint32{500}, []int8{0}, "500", 2},
		"the first wrong":            {false, meter.Billing, []uint32{900, 500}, []int8{0}, "500", 3},
		"the second wrong":           {false, meter.Billing, []uint32{500, 900, 500}, []int8{0}, "500", 4},
		"one that grows":             {false, meter.Billing, []uint32{500, 501, 502, 503}, []int8{0}, "502", 3},
		"never alike":                {false, meter.Billing, []uint32{500, 900, 500, 900}, []int8{0}, "", 4},
		"another scaler":             {false, meter.Billing, []uint32{500}, []int8{0, 3}, "", 2},
		"not for a bill":             {false, meter.Instant, []uint32{500, 900}, []int8{0}, "500", 1},
		"where transport is sounder": {true, meter.Billing, []uint32{500, 900}, []int8{0}, "500", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, reads := billed(t, !c.wrapper, c.values, c.scalers)
			got, err := m.Visit(t.Context(), meter.Ask{Groups: []meter.Group{{Lane: c.lane, Channels: []meter.Channel{channel(t, "1-0:1.8.0")}}}})
			value := ""
			if len(got.Rows) == 1 {
				value = got.Rows[0].Value.String()
			}
			if err != nil || value != c.want || reads.Load() != c.reads {
				t.Errorf("%q in %d reads, want %q in %d: %v, %s", value, reads.Load(), c.want, c.reads, err, describe(got))
			}
			if c.want == "" && (len(got.Failures) != 1 || !errors.Is(got.Failures[0].Err, ErrUnsteady)) {
				t.Errorf("failures %v", got.Failures)
			}
		})
	}
}
