package scan_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/drivers/drivertest"
	"gridgate/drivers/scan"
)

// station is a DLMS meter on a bus.
func station(name string, physical byte, any bool) (*dlmstest.Meter, dlmstest.Station) {
	data := func(code obis.Code, s string) dlmstest.Object {
		return dlmstest.Data(code, dlmstest.Fixed(axdr.OctetString(s)))
	}
	m := dlmstest.NewMeter(dlmstest.Options{
		Name:    "ACM" + name,
		Objects: []dlmstest.Object{data(obis.Code{0, 0, 96, 1, 0, 255}, name)},
	})
	return m, dlmstest.Station{Server: []byte{1 << 1, physical<<1 | 1}, AnyForm: any, MaxInfo: 128, Window: 1}
}

// Six DLMS meters on one line tell their serial numbers within a minute, those
// that answer to several forms of their address once.
func TestDLMSMetersAreFound(t *testing.T) {
	t.Parallel()
	for _, anyForm := range []bool{false, true} {
		serve := func(ctx context.Context, rw io.ReadWriter) {
			hub := drivertest.NewHub(rw, 6)
			var wg sync.WaitGroup
			for i := range 6 {
				m, st := station(fmt.Sprintf("D%06d", i), byte(3+5*i), anyForm)
				wg.Go(func() { _ = m.ServeHDLC(hub.End(i), st) })
			}
			_ = hub.Run(ctx)
			wg.Wait()
		}
		s, took := onWire(t, set(9600, 'N'), serve, serial(numbers[uint8](1, 32), numbers[uint16](1, 32)))
		var got []string
		for _, f := range s.Found() {
			got = append(got, fmt.Sprintf("%d %s %s", f.Physical, f.Serial, f.Protocol))
		}
		want := []string{"3 D000000 dlms+hdlc", "8 D000001 dlms+hdlc", "13 D000002 dlms+hdlc", "18 D000003 dlms+hdlc", "23 D000004 dlms+hdlc", "28 D000005 dlms+hdlc"}
		if !slices.Equal(got, want) || took > time.Minute {
			t.Errorf("any form %v: found %q in %v, notes %q", anyForm, got, took, s.Notes())
		}
		t.Logf("any form %v: %v, notes %q", anyForm, took, s.Notes())
	}
}

// slowly is an end whose meter takes its time.
type slowly struct {
	io.ReadWriter
	d time.Duration
}

func (s slowly) Write(b []byte) (int, error) {
	time.Sleep(s.d)
	return s.ReadWriter.Write(b)
}

// DLMS meters that answer after their time are found as well.
func TestSlowDLMSMetersAreFound(t *testing.T) {
	t.Parallel()
	serve := func(ctx context.Context, rw io.ReadWriter) {
		hub := drivertest.NewHub(rw, 3)
		var wg sync.WaitGroup
		for i := range 3 {
			m, st := station(fmt.Sprintf("SLOW%d", i), byte(3+i), false)
			if i == 2 {
				st.Server = []byte{0, 1 << 1, 0, 32<<1 | 1} // that is called last
			}
			wg.Go(func() { _ = m.ServeHDLC(slowly{hub.End(i), time.Duration(150+40*i) * time.Millisecond}, st) })
		}
		_ = hub.Run(ctx)
		wg.Wait()
	}
	cfg := serial(nil, numbers[uint16](1, 32))
	cfg.Protocols, cfg.Settings = []scan.Protocol{scan.HDLC}, cfg.Settings[:1]
	s, _ := onWire(t, set(9600, 'N'), serve, cfg)
	if len(s.Found()) != 3 {
		t.Errorf("found %+v, notes %q", s.Found(), s.Notes())
	}
}

// A meter that has no physical address answers to any: it is one all the same. One
// with an address of four octets is found behind those that have it in any form.
func TestFormsOfAddresses(t *testing.T) {
	t.Parallel()
	alone := func(_ context.Context, rw io.ReadWriter) {
		m, st := station("ALONE1", 0, true)
		st.Server = []byte{1<<1 | 1}
		_ = m.ServeHDLC(rw, st)
	}
	mixed := func(ctx context.Context, rw io.ReadWriter) {
		hub := drivertest.NewHub(rw, 5)
		var wg sync.WaitGroup
		for i := range 5 {
			m, st := station(fmt.Sprintf("MIX%d", i), byte(3+i), i < 4)
			if i == 4 {
				st.Server = []byte{0, 1 << 1, 0, 30<<1 | 1}
			}
			wg.Go(func() { _ = m.ServeHDLC(hub.End(i), st) })
		}
		_ = hub.Run(ctx)
		wg.Wait()
	}
	for _, c := range []struct {
		serve func(context.Context, io.ReadWriter)
		want  []string
	}{
		{alone, []string{"ALONE1 0 1"}},
		{mixed, []string{"MIX0 3 2", "MIX1 4 2", "MIX2 5 2", "MIX3 6 2", "MIX4 30 4"}},
	} {
		cfg := serial(nil, numbers[uint16](1, 32))
		cfg.Protocols, cfg.Settings = []scan.Protocol{scan.HDLC}, cfg.Settings[:1]
		s, took := onWire(t, set(9600, 'N'), c.serve, cfg)
		var got []string
		for _, f := range s.Found() {
			got = append(got, fmt.Sprintf("%s %d %d", f.Serial, f.Physical, f.AddrLen))
		}
		if !slices.Equal(got, c.want) || took > time.Minute {
			t.Errorf("found %q, want %q, in %v; notes %q", got, c.want, took, s.Notes())
		}
	}
}
