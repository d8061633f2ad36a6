package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/drivers/plc"
)

// baseNode is a PRIME base node with its nodes, in simulated time: frames get
// lost, take their time and come twice, nodes leave and come back.
type baseNode struct {
	loss, twice float64
	least, most time.Duration

	mu     sync.Mutex
	fates  *rand.Rand
	conn   net.Conn // nil for none
	nodes  []*simNode
	byID   map[uint16]*simNode
	lastID uint16
	asked  uint64 // frames that the client sent
	ended  bool
}

type simNode struct {
	serial   string
	eui      [6]byte
	id       uint16 // 0 when it is away
	meter    *dlmstest.Meter
	sessions map[uint16]*dlmstest.Session
	asked    int
	since    time.Time // it is there
}

func newBaseNode(seed uint64) *baseNode {
	return &baseNode{
		loss: 0.1, twice: 0.02, least: time.Second, most: 8 * time.Second,
		fates: rand.New(rand.NewPCG(seed, 1)), byID: map[uint16]*simNode{},
	}
}

// quarterMeter has a load profile of every quarter of an hour.
func quarterMeter(serial string) *dlmstest.Meter {
	code := func(s string) obis.Code { c, _ := obis.Parse(s); return c }
	const quarter = 15 * time.Minute
	value := func(t time.Time) axdr.Value { return axdr.DoubleLongUnsigned(uint32(t.Unix() / 900)) }
	now := func(f func(time.Time) axdr.Value) func() axdr.Value {
		return func() axdr.Value { return f(time.Now()) }
	}
	rows := func(s *dlmstest.Selection) (rows []axdr.Value) {
		from := time.Now().Add(-40 * 24 * time.Hour)
		to := time.Now()
		if s != nil && s.From.After(from) {
			from = s.From
		}
		if s != nil && s.To.Before(to) {
			to = s.To
		}
		for t := from.Add(quarter - 1).Truncate(quarter); !t.After(to); t = t.Add(quarter) {
			rows = append(rows, axdr.Structure(axdr.OctetString(dlmstest.DateTime(t.UTC())), axdr.Unsigned(0), value(t), value(t)))
		}
		return rows
	}
	return dlmstest.NewMeter(dlmstest.Options{
		MaxPDU:  1024,
		Clients: map[uint16]dlmstest.Login{16: {Conformance: dlmstest.Reading}},
		Objects: []dlmstest.Object{
			dlmstest.Data(code("0-0:96.1.0"), dlmstest.Fixed(axdr.OctetString(serial))),
			dlmstest.Clock(code("0-0:1.0.0"), func() time.Time { return time.Now().UTC() }),
			dlmstest.Register(code("1-0:1.8.0"), 0, 30, now(value)),
			dlmstest.Register(code("1-0:2.8.0"), 0, 30, now(value)),
			dlmstest.Profile(code("1-0:99.1.0"), []dlmstest.Column{
				{Class: 8, Code: code("0-0:1.0.0"), ID: 2},
				{Class: 1, Code: code("0-0:96.10.1"), ID: 2},
				{Class: 3, Code: code("1-0:1.8.0"), ID: 2},
				{Class: 3, Code: code("1-0:2.8.0"), ID: 2},
			}, uint32(quarter/time.Second), rows),
		},
	})
}

func (b *baseNode) add(serial string) *simNode {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := &simNode{serial: serial, eui: [6]byte{0, 0x80, 0xE1, 0, byte(len(b.nodes) >> 8), byte(len(b.nodes))}, meter: quarterMeter(serial)}
	b.nodes = append(b.nodes, n)
	b.join(n)
	return n
}

// join has a node join, with the next device id. mu is held.
func (b *baseNode) join(n *simNode) {
	b.lastID++
	n.id, n.since = b.lastID, time.Now()
	n.sessions = map[uint16]*dlmstest.Session{}
	b.byID[n.id] = n
	b.tell(b.newDevice(n))
}

func (b *baseNode) newDevice(n *simNode) []byte {
	m := []byte{1, byte(n.id >> 8), byte(n.id), 0, 1, byte(len(n.serial))}
	m = append(m, n.serial...)
	return append(m, n.eui[:]...)
}

// leave has a node leave. mu is held.
func (b *baseNode) leave(n *simNode) {
	delete(b.byID, n.id)
	b.tell([]byte{2, byte(n.id >> 8), byte(n.id)})
	n.id = 0
}

// tell sends a message. mu is held.
func (b *baseNode) tell(m []byte) { b.write(0, 1, m) }

func (b *baseNode) write(from, to uint16, body []byte) {
	if b.conn == nil {
		return
	}
	f := []byte{0, 1}
	f = binary.BigEndian.AppendUint16(f, from)
	f = binary.BigEndian.AppendUint16(f, to)
	f = binary.BigEndian.AppendUint16(f, uint16(len(body)))
	_, _ = b.conn.Write(append(f, body...))
}

func (b *baseNode) dial(context.Context) (plc.Stream, error) {
	client, server := net.Pipe()
	b.mu.Lock()
	b.conn = server
	b.mu.Unlock()
	go b.serve(server)
	return client, nil
}

func (b *baseNode) serve(conn net.Conn) {
	for {
		var head [8]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			break
		}
		body := make([]byte, binary.BigEndian.Uint16(head[6:]))
		if _, err := io.ReadFull(conn, body); err != nil {
			break
		}
		from, to := binary.BigEndian.Uint16(head[2:]), binary.BigEndian.Uint16(head[4:])
		b.mu.Lock()
		if from == 1 && to == 0 && len(body) == 1 && body[0] == 3 {
			for _, n := range b.nodes {
				if n.id != 0 {
					b.tell(b.newDevice(n))
				}
			}
		} else {
			b.asked++
			b.carry(to, func(n *simNode) { b.request(n, from, body) })
		}
		b.mu.Unlock()
	}
	b.mu.Lock()
	if b.conn == conn {
		b.conn = nil
	}
	b.mu.Unlock()
}

// carry takes a frame over the power line to or from the node with that id. mu
// is held.
func (b *baseNode) carry(id uint16, arrive func(*simNode)) {
	n := b.byID[id]
	if n == nil {
		return
	}
	for copies := 1; copies > 0; copies-- {
		if b.fates.Float64() < b.twice {
			copies++
		}
		if b.fates.Float64() < b.loss {
			continue
		}
		delay := b.least + time.Duration(b.fates.Int64N(int64(b.most-b.least)))
		time.AfterFunc(delay, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if n.id == id && !b.ended {
				arrive(n)
			}
		})
	}
}

// request has a node answer. mu is held.
func (b *baseNode) request(n *simNode, client uint16, apdu []byte) {
	n.asked++
	s := n.sessions[client]
	if s == nil {
		s = n.meter.NewSession()
		n.sessions[client] = s
	}
	for _, answer := range s.Answer(client, apdu) {
		id := n.id
		b.carry(id, func(*simNode) { b.write(id, client, answer) })
	}
}

// churn has nodes leave and come back until ctx ends.
func (b *baseNode) churn(ctx context.Context, nodes []*simNode) {
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			for {
				b.mu.Lock()
				stay := 5*time.Minute + time.Duration(b.fates.Int64N(int64(15*time.Minute)))
				away := 2*time.Minute + time.Duration(b.fates.Int64N(int64(8*time.Minute)))
				b.mu.Unlock()
				if !sleep(ctx, stay) {
					return
				}
				b.mu.Lock()
				b.leave(n)
				b.mu.Unlock()
				if !sleep(ctx, away) {
					return
				}
				b.mu.Lock()
				b.join(n)
				b.mu.Unlock()
			}
		})
	}
	all.Wait()
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *baseNode) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if b.conn != nil {
		_ = b.conn.Close()
	}
}

func serialOf(i int) string { return fmt.Sprintf("ZIV%010d", i) }
