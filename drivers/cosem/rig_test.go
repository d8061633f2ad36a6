package cosem

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// rig is a simulated meter on a TCP port of this machine, and what it was asked.
type rig struct {
	addr  string
	serve func(io.ReadWriter) error

	mu       sync.Mutex
	requests []string // GETs as class/code:attribute, others by their tag
	conns    []net.Conn
	tamper   func(request, frame []byte) []byte
}

// newRig serves until the test ends.
func newRig(t *testing.T, o dlmstest.Options) *rig {
	t.Helper()
	r := &rig{}
	tamper := o.Tamper
	o.Tamper = func(request, frame []byte) []byte {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests = append(r.requests, name(request))
		if r.tamper != nil {
			return r.tamper(request, frame)
		}
		if tamper != nil {
			return tamper(request, frame)
		}
		return frame
	}
	r.serve = dlmstest.NewMeter(o).Serve
	r.listen(t)
	return r
}

func (r *rig) listen(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns = append(r.conns, conn)
			serve := r.serve
			r.mu.Unlock()
			tasks.Go(func() {
				_ = serve(conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		r.hangUp()
		tasks.Wait()
	})
}

// hangUp ends the connections that there are.
func (r *rig) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

func (r *rig) spoil(f func(request, frame []byte) []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tamper = f
}

// asked gives the requests since it was called last.
func (r *rig) asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.requests
	r.requests = nil
	return asked
}

func name(request []byte) string {
	switch {
	case request[0] == 0x60:
		return "associate"
	case request[0] == 0x62:
		return "release"
	case request[0] == 0xC0 && request[1] == 2:
		return "next"
	}
	return dlmstest.Describe(request)[len("get "):]
}

// turnable is a clock that tests turn.
type turnable struct {
	mu sync.Mutex
	at time.Time
}

func (c *turnable) now() meter.Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return meter.Stamp{Time: c.at.UnixMilli(), Mono: c.at.UnixMilli() / 2, Boot: 7, Bound: 20}
}

func (c *turnable) turn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// driver gives the driver of the rig's meter on a line of its own.
func (r *rig) driver(t *testing.T, cfg Config) *Meter {
	t.Helper()
	l := line.TCP(r.addr, line.Options{})
	if cfg.ID == "" {
		cfg.ID = "m1"
	}
	if cfg.Now == nil {
		cfg.Now = (&turnable{at: start()}).now
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute // of tests that do not wait for it
	}
	m := New(cfg, l)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func start() time.Time { return time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC) }

func obisOf(s string) obis.Code {
	c, err := obis.Parse(s)
	if err != nil {
		panic(err)
	}
	return c
}

func channel(t *testing.T, s string) meter.Channel {
	t.Helper()
	c, err := meter.ParseChannel(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// registers asks for channels into the instant lane.
func registers(t *testing.T, names ...string) meter.Ask {
	t.Helper()
	g := meter.Group{Name: "g", Lane: meter.Instant}
	for _, n := range names {
		g.Channels = append(g.Channels, channel(t, n))
	}
	return meter.Ask{Groups: []meter.Group{g}}
}

func fixed(v axdr.Value) func() axdr.Value { return dlmstest.Fixed(v) }

// objects are a meter with the serial number, if it is not empty.
func objects(serial string) []dlmstest.Object {
	o := []dlmstest.Object{
		dlmstest.Clock(obisOf("0-0:1.0.0"), func() time.Time { return start().In(time.FixedZone("", 3600)).Add(5 * time.Second) }),
		dlmstest.Register(obisOf("1-0:1.8.0"), -1, 30, fixed(axdr.DoubleLongUnsigned(12345))),
		dlmstest.Register(obisOf("1-0:2.8.0"), 3, 30, fixed(axdr.Long64Unsigned(1<<64-1))),
		dlmstest.Register(obisOf("1-0:16.7.0"), -2, 27, fixed(axdr.DoubleLong(-4321))),
		dlmstest.Register(obisOf("1-0:32.7.0"), 0, 35, fixed(axdr.Float32(230.1))),
		dlmstest.ExtendedRegister(obisOf("1-0:1.6.0"), 1, 27, fixed(axdr.LongUnsigned(321)), start),
		dlmstest.Attributes(5, obisOf("1-0:1.4.0"), map[int8]func() axdr.Value{
			2: fixed(axdr.Unsigned(5)), 3: fixed(axdr.Unsigned(6)),
			4: fixed(axdr.Structure(axdr.Integer(2), axdr.Enum(27))),
		}),
		dlmstest.Data(obisOf("0-0:96.3.0"), fixed(axdr.Structure(axdr.Unsigned(1), axdr.Unsigned(2)))),
		dlmstest.Data(obisOf("0-0:97.97.0"), fixed(axdr.OctetString("AB"))),
		dlmstest.Data(obisOf("1-0:0.2.0"), fixed(axdr.OctetString("v1.2"))),
		dlmstest.Data(obisOf("0-0:96.5.0"), fixed(axdr.Boolean(true))),
		dlmstest.Data(obisOf("0-0:96.6.0"), fixed(axdr.Null())),
	}
	if serial != "" {
		o = append(o, dlmstest.Data(obisOf("0-0:96.1.0"), fixed(axdr.OctetString(serial))))
	}
	return o
}

func isList(got []string, want ...string) bool { return slices.Equal(got, want) }

func describe(got meter.Got) string {
	s := fmt.Sprintf("identity %+v, clock %+v, cursors %+v", got.Identity, got.Clock, got.Cursors)
	for _, r := range got.Rows {
		s += fmt.Sprintf("\n\t%v", r)
	}
	for _, f := range got.Failures {
		s += fmt.Sprintf("\n\t%v", f)
	}
	return s
}
