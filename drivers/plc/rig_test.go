package plc

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"gridgate/drivers/line"
)

// head is a base node or a gateway in memory.
type head struct {
	t *testing.T

	mu     sync.Mutex
	conn   net.Conn
	dialed int
	got    [][]byte // frames, whole
	answer func(frame []byte)
	refuse error
	ended  sync.WaitGroup
}

func (h *head) dial(context.Context) (Stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse != nil {
		return nil, h.refuse
	}
	client, server := net.Pipe()
	h.conn = server
	h.dialed++
	h.ended.Go(func() {
		for {
			var first [8]byte
			if _, err := io.ReadFull(server, first[:]); err != nil {
				return
			}
			frame := append(first[:], make([]byte, binary.BigEndian.Uint16(first[6:]))...)
			if _, err := io.ReadFull(server, frame[8:]); err != nil {
				return
			}
			h.mu.Lock()
			h.got = append(h.got, frame)
			answer := h.answer
			h.mu.Unlock()
			if answer != nil {
				answer(frame)
			}
		}
	})
	return client, nil
}

// send sends octets, in hexadecimal digits.
func (h *head) send(digits string) {
	h.t.Helper()
	h.sendBytes(unhex(h.t, digits))
}

func (h *head) sendBytes(b []byte) {
	h.mu.Lock()
	conn := h.conn
	h.mu.Unlock()
	if conn != nil {
		_, _ = conn.Write(b)
	}
}

// frames gives what came, in hexadecimal digits, since it was called last.
func (h *head) frames() (all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.got {
		all = append(all, hex.EncodeToString(f))
	}
	h.got = nil
	return all
}

func (h *head) hangUp() {
	h.mu.Lock()
	conn := h.conn
	h.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
}

// newHead gives a bridge to a head; the test's end closes both.
func newHead(t *testing.T, c Config) (*head, *Bridge) {
	h := &head{t: t}
	c.Name, c.Dial = "base:4059", h.dial
	b := New(c)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		h.hangUp()
		h.ended.Wait()
	})
	return h, b
}

// newDevice is the message that a node joined, as it is on the wire.
func newDevice(id uint16, name string, eui byte) []byte {
	m := []byte{1, byte(id >> 8), byte(id), 0, 1, byte(len(name))}
	m = append(append(m, name...), 0, 0x80, 0xE1, 0, 0, eui)
	return append([]byte{0, 1, 0, 0, 0, 1, 0, byte(len(m))}, m...)
}

func removeDevice(id uint16) []byte {
	return []byte{0, 1, 0, 0, 0, 1, 0, 3, 2, byte(id >> 8), byte(id)}
}

// exchange sends an APDU from client 16 to server 1 and gives what comes within
// wait.
func exchange(ctx context.Context, n *Node, apdu []byte, wait time.Duration) (got []byte, err error) {
	err = n.Line().Do(ctx, line.Settings{}, func(_ context.Context, p line.Port) error {
		if _, err := p.Write(append([]byte{0, 1, 0, 16, 0, 1, 0, byte(len(apdu))}, apdu...)); err != nil {
			p.Drop()
			return err
		}
		if err := p.SetDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		b := make([]byte, 1024)
		size, err := p.Read(b)
		got = b[:size]
		if err != nil {
			p.Drop()
		}
		return err
	})
	return got, err
}

func (h *head) dials() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dialed
}

// refuses has connections refused; nil lets them through.
func (h *head) refuses(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuse = err
}
