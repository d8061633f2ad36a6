package agent

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/buffer"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
	"gridgate/internal/proctest"
)

// asking is a DLMS meter on a port of this machine, and what it was asked.
type asking struct {
	mu    sync.Mutex
	asked []string
}

func (a *asking) take() (asked []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked, a.asked = a.asked, nil
	return asked
}

func serveMeter(t *testing.T, objects ...dlmstest.Object) (a *asking, address string) {
	t.Helper()
	return serveMeterThat(t, dlmstest.Plain, objects...)
}

func serveMeterThat(t *testing.T, conformance uint32, objects ...dlmstest.Object) (a *asking, address string) {
	t.Helper()
	a = &asking{}
	m := dlmstest.NewMeter(dlmstest.Options{Clients: map[uint16]dlmstest.Login{16: {Conformance: conformance}}, Objects: objects, Tamper: func(request, frame []byte) []byte {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked = append(a.asked, dlmstest.Describe(request))
		return frame
	}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				_ = m.Serve(c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		all.Wait()
	})
	return a, ln.Addr().String()
}

// A meter of which the configuration says nothing but where it is, is read what
// it has: registers, load profile, events. After a restart it is not asked again
// what its objects are.
func TestAMeterWithoutGroupsIsReadWhatItHas(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Minute)
	at := func(d time.Duration) axdr.Value {
		return axdr.OctetString(dlmstest.DateTime(now.Add(d).UTC()))
	}
	clock := dlmstest.Column{Class: 8, Code: obis.Code{0, 0, 1, 0, 0, 255}, ID: 2}
	energy := dlmstest.Column{Class: 3, Code: obis.Code{1, 0, 1, 8, 0, 255}, ID: 2}
	event := dlmstest.Column{Class: 1, Code: obis.Code{0, 0, 96, 11, 1, 255}, ID: 2}
	profile := func(code obis.Code, second dlmstest.Column, period uint32, rows ...axdr.Value) dlmstest.Object {
		return dlmstest.Profile(code, []dlmstest.Column{clock, second}, period, func(s *dlmstest.Selection) []axdr.Value {
			if s != nil && s.To.Before(now.Add(-20*time.Hour)) {
				return nil
			}
			return rows
		})
	}
	m, address := serveMeter(t,
		dlmstest.Data(obis.Code{0, 0, 96, 1, 0, 255}, dlmstest.Fixed(axdr.OctetString("A1"))),
		dlmstest.Clock(clock.Code, time.Now().UTC),
		dlmstest.Register(energy.Code, 0, 30, dlmstest.Fixed(axdr.DoubleLongUnsigned(1000))),
		dlmstest.Cells(1, obis.Code{0, 0, 97, 98, 0, 255}, map[int8]axdr.Value{2: axdr.DoubleLongUnsigned(1 << 13)}, 2),
		profile(obis.Code{1, 0, 99, 1, 0, 255}, energy, 900, axdr.Structure(at(-30*time.Minute), axdr.DoubleLongUnsigned(990)),
			axdr.Structure(at(-15*time.Minute), axdr.DoubleLongUnsigned(995))),
		profile(obis.Code{0, 0, 99, 98, 1, 255}, event, 0, axdr.Structure(at(-time.Hour), axdr.Unsigned(40))),
	)
	s := newSite(t)
	cfg := s.config("here", `{id: m, serial: A1, url: "dlms+wrapper://`+address+`"}`)
	run := func() {
		t.Helper()
		s.make(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.agent.Run(ctx) }()
		proctest.Until(t, "the meter is read", func() bool {
			r := s.agent.Report().Meters
			return len(r) == 1 && r[0].Visits > 0
		})
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	run()
	first := m.take()
	var got []string
	err := buffer.Dump(cfg.Buffer.Path, meter.Lanes(), func(_ uint64, r meter.Row) error {
		got = append(got, r.Lane.String()+" "+r.Channel.Short()+"="+r.Value.String())
		return nil
	})
	want := []string{
		"alarm 0-0:97.98.0=8192", "alarm 0-0:96.11.1=40",
		"interval 1-0:1.8.0=990", "interval 1-0:1.8.0=995", "instant 1-0:1.8.0=1000",
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("%s is not stored", w)
		}
	}
	if err != nil || t.Failed() {
		t.Fatalf("%v, stored %q\nasked %q", err, got, first)
	}
	run()
	again := m.take()
	asks := func(asked []string, what string) bool {
		return slices.ContainsFunc(asked, func(s string) bool { return strings.Contains(s, what) })
	}
	// What profiles capture is compared on every association.
	for what, always := range map[string]bool{"/15:2": false, "1.8.0*255/3:3": false, "99.1.0*255/7:3": true, "99.98.1*255/7:3": true} {
		if !asks(first, what) || asks(again, what) != always {
			t.Errorf("%s: asked at first %q, after the restart %q", what, first, again)
		}
	}
}
