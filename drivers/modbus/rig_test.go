package modbus

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"gridgate/drivers/drivertest"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// word is what the simulated meter has at a register: distinct everywhere.
func word(function uint8, address uint16) uint16 { return address*40503 + uint16(function) }

// rig is a simulated meter, unit 1, on one end of a line. It spoils answers.
type rig struct {
	// spoil gives what is sent for the n-th request (from 0) in place of its
	// answer, in parts with a pause between them.
	spoil func(n int, request, answer []byte) [][]byte
	// refuse tells which reads get exception 2.
	refuse func(function uint8, address, count uint16) bool

	mu   sync.Mutex
	n    int
	asks []shape // what was asked
}

func (g *rig) answer(request []byte) []byte {
	function, address, count := request[1], binary.BigEndian.Uint16(request[2:]), binary.BigEndian.Uint16(request[4:])
	if g.refuse != nil && g.refuse(function, address, count) || count > maxRegs {
		return frame(request[0], function|0x80, 2)
	}
	b := []byte{request[0], function, byte(2 * count)}
	for i := range count {
		b = binary.BigEndian.AppendUint16(b, word(function, address+i))
	}
	return frame(b...)
}

// serve answers RTU requests until reading fails.
func (g *rig) serve(rw io.ReadWriter) {
	var in []byte
	buf := make([]byte, 64)
	for {
		n, err := rw.Read(buf)
		if err != nil {
			return
		}
		in = append(in, buf[:n]...)
		for len(in) >= requestLen {
			request := slices.Clone(in[:requestLen])
			if !checked(request) || request[0] != 1 {
				in = in[1:]
				continue
			}
			in = in[requestLen:]
			for i, part := range g.parts(request) {
				if i > 0 {
					pause()
				}
				if _, err := rw.Write(part); err != nil {
					return
				}
			}
		}
	}
}

const pauseTime = 40 * time.Millisecond

// pause is longer than the silence between frames, and than a client that
// computes how long an answer takes waits for one.
func pause() {
	t := time.NewTimer(pauseTime)
	defer t.Stop()
	<-t.C
}

func (g *rig) parts(request []byte) [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asks = append(g.asks, newMatcher(request).want)
	n := g.n
	g.n++
	answer := g.answer(request)
	if g.spoil == nil {
		return [][]byte{answer}
	}
	return g.spoil(n, request, answer)
}

func (g *rig) asked() []shape {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.asks)
}

// onPty puts g on a pseudo-terminal.
func (g *rig) onPty(t *testing.T) (path string) {
	t.Helper()
	tty, err := drivertest.Pty()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { g.serve(tty) })
	t.Cleanup(func() { _ = tty.Close(); wg.Wait() })
	return tty.Path
}

// onTCP puts serve on a port.
func onTCP(t *testing.T, serve func(io.ReadWriter)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		conns []net.Conn
	)
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

func closing(t *testing.T, l *line.Line) *line.Line {
	t.Helper()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func serialLine(t *testing.T, path string) *line.Line {
	t.Helper()
	return closing(t, line.Serial(path, line.Options{LockDir: t.TempDir()}))
}

// clock is a meter.Now whose stamps count.
func clock() meter.Now {
	n := int64(0)
	return func() meter.Stamp { n++; return meter.Stamp{Time: 1_800_000_000_000 + n} }
}

// channelAt names the register at an address.
func channelAt(address uint16) meter.Channel {
	return meter.Channel("r" + string(rune('a'+address%26)) + string(rune('a'+address/26%26)) + string(rune('a'+address/676)))
}

// modelOf has a u16 at each address.
func modelOf(addresses ...uint16) *Model {
	m := &Model{Name: "test", MaxRegs: 20, Holes: true}
	for _, a := range addresses {
		m.Registers = append(m.Registers, Register{Channel: channelAt(a), Function: 4, Address: a, Type: U16})
	}
	return m
}

// count tells right values from wrong ones.
func count(m *Model, rows []meter.Row) (right, wrong int) {
	for _, row := range rows {
		r := m.register(row.Channel)
		if r != nil && row.Value == meter.UintValue(uint64(word(r.Function, r.Address)), 0) {
			right++
		} else {
			wrong++
		}
	}
	return right, wrong
}

func ask(channels ...meter.Channel) meter.Ask {
	return meter.Ask{Groups: []meter.Group{{Name: "g", Lane: meter.Instant, Channels: channels}}}
}
