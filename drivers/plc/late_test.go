package plc

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/dlms/wrapper"
	"gridgate/drivers/line"
)

// impatience is how long an answer is waited for: too short for many.
const impatience = 12 * time.Second

// carrier takes APDUs over the line of a node, as a driver does.
type carrier struct {
	port line.Port
	conn *wrapper.Conn
}

// one has each Read give octets of one frame.
type one struct {
	line.Port
	rest []byte
}

func (o *one) Read(p []byte) (int, error) {
	if len(o.rest) == 0 {
		whole := make([]byte, 4096)
		n, err := o.Port.Read(whole)
		if err != nil {
			return 0, err
		}
		o.rest = whole[:n]
	}
	n := copy(p, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}

func (c *carrier) Send(_ context.Context, apdu []byte) error {
	if err := c.port.SetDeadline(time.Now().Add(impatience)); err != nil {
		return err
	}
	return c.conn.Send(apdu)
}

func (c *carrier) Receive(_ context.Context, b []byte) ([]byte, error) { return c.conn.Receive(b) }

// rounds has a meter read over a bad line again and again, and counts the
// values that are older than the question. Every frame is lost one time in
// four, takes 1 to 15 s and comes twice one time in five.
func rounds(t *testing.T, n int, pause time.Duration, forget func(*Node)) (read, old int) {
	t.Helper()
	h, b := newHead(t, Config{Kind: Prime})
	code := obis.Code{1, 0, 1, 8, 0, 255}
	stamp := func() axdr.Value { return axdr.Long64Unsigned(uint64(time.Now().UnixNano())) }
	m := dlmstest.NewMeter(dlmstest.Options{Objects: []dlmstest.Object{dlmstest.Data(code, stamp)}})
	session := m.NewSession()
	fates := rand.New(rand.NewPCG(7, 7))
	var mu sync.Mutex
	over := false
	carry := func(arrive func()) {
		for copies := 1; copies > 0; copies-- {
			if fates.IntN(5) == 0 {
				copies++
			}
			if fates.IntN(4) == 0 {
				continue
			}
			time.AfterFunc(time.Second+time.Duration(fates.Int64N(int64(14*time.Second))), func() {
				mu.Lock()
				defer mu.Unlock()
				if !over {
					arrive()
				}
			})
		}
	}
	h.answer = func(f []byte) {
		mu.Lock()
		defer mu.Unlock()
		if f[8] == 3 && f[5] == 0 {
			h.sendBytes(newDevice(1, "A", 1))
			return
		}
		carry(func() {
			for _, apdu := range session.Answer(16, f[8:]) {
				carry(func() {
					h.sendBytes(append(binary.BigEndian.AppendUint16([]byte{0, 1, 0, 1, 0, 16}, uint16(len(apdu))), apdu...))
				})
			}
		})
	}
	node := b.Node("A")
	var client *dlms.Client
	c := &carrier{}
	opened := uint64(0)
	for range n {
		_ = node.Line().Do(t.Context(), line.Settings{}, func(ctx context.Context, p line.Port) error {
			c.port = &one{Port: p}
			c.conn = wrapper.NewConn(&one{Port: p}, 16, 1, 0)
			if client == nil || opened != node.Line().Opened() {
				client = dlms.NewClient(c, dlms.Options{Repeat: true, Repeats: 1})
				if _, err := client.Associate(ctx); err != nil {
					client = nil
					p.Drop()
					return err
				}
				opened = node.Line().Opened()
			}
			asked := time.Now()
			v, err := client.Get(ctx, dlms.Attribute{Class: 1, Code: code, ID: 2})
			if err != nil {
				client = nil
				p.Drop()
				return err
			}
			read++
			if at, ok := v.Uint64(); !ok || int64(at) < asked.UnixNano() {
				old++
			}
			return nil
		})
		if forget != nil {
			forget(node)
		}
		time.Sleep(pause)
	}
	mu.Lock()
	over = true
	mu.Unlock()
	time.Sleep(time.Minute)
	return read, old
}

// TestNoAnswerIsOlderThanItsQuestion: what comes late and twice is taken for
// nothing, over associations that break off and begin anew.
func TestNoAnswerIsOlderThanItsQuestion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		read, old := rounds(t, 12000, 3*time.Minute, nil)
		t.Logf("%d values, %d of them older than the question", read, old)
		if read < 1000 || old > 0 {
			t.Errorf("%d of %d values are answers to something else", old, read)
		}
	})
}

// TestWithoutWaiting is the control: without the time between conversations
// some are.
func TestWithoutWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		read, old := rounds(t, 6000, time.Second, func(n *Node) {
			n.bridge.mu.Lock()
			defer n.bridge.mu.Unlock()
			n.sent, n.heard, n.quiet = time.Time{}, time.Time{}, 0
		})
		t.Logf("%d values, %d of them older than the question", read, old)
		if old == 0 {
			t.Error("no answer came late: the line of this test is too good")
		}
	})
}
