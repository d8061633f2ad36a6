package line_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"gridgate/drivers/line"
)

func listenUDP(t *testing.T) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestUDP: a read gives a datagram, of the meter's port and no other, and none
// that was there before Discard.
func TestUDP(t *testing.T) {
	t.Parallel()
	meter, stranger := listenUDP(t), listenUDP(t)
	l := closing(t, line.UDP(meter.LocalAddr().String(), line.Options{}))
	err := l.Do(t.Context(), line.Settings{}, func(_ context.Context, p line.Port) error {
		if _, err := p.Write([]byte("first")); err != nil {
			return err
		}
		b := make([]byte, 64)
		n, client, err := meter.ReadFromUDPAddrPort(b)
		if err != nil || string(b[:n]) != "first" {
			t.Errorf("the meter got %q, %v", b[:n], err)
		}
		send := func(from *net.UDPConn, s string) {
			if _, err := from.WriteToUDPAddrPort([]byte(s), client); err != nil {
				t.Error(err)
			}
		}
		send(meter, "late")
		if err := p.Discard(); err != nil {
			return err
		}
		send(stranger, "not the meter")
		send(meter, "")
		send(meter, "a whole one")
		send(meter, "another")
		if err := p.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		for _, want := range []string{"a whole one", "anot"} {
			if n, err := p.Read(b[:len(want)]); err != nil || string(b[:n]) != want {
				t.Errorf("got %q, %v", b[:n], err)
			}
		}
		if err := p.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			return err
		}
		if n, err := p.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the rest of a datagram came: %q, %v", b[:n], err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestUDPRefused: that nobody listens shows with the answer, and the line is
// opened anew.
func TestUDPRefused(t *testing.T) {
	t.Parallel()
	nobody := listenUDP(t)
	l := closing(t, line.UDP(nobody.LocalAddr().String(), line.Options{}))
	nobody.Close()
	opened := uint64(0)
	for range 2 {
		err := l.Do(t.Context(), line.Settings{}, func(_ context.Context, p line.Port) error {
			opened = l.Opened()
			if err := p.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				return err
			}
			if _, err := p.Write([]byte("x")); err != nil {
				return err
			}
			_, err := p.Read(make([]byte, 1))
			return err
		})
		if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "is the port number right, and does the device listen?") {
			t.Errorf("%v", err)
		}
	}
	if opened != 2 {
		t.Errorf("opened %d times", opened)
	}
}
