package cosem

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/wrapper"
)

// TestServe takes connections of both framings on a listener of the caller's,
// and leaves nothing behind.
func TestServe(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, told := make(chan Sender, 8), make(chan error, 8*maxSenders)
	r := &Receiver{
		Now: newHeard().Now,
		Got: func(from Sender, _ Pushed) (func() error, error) { got <- from; return nil, nil },
		Bad: func(_ Sender, err error) { told <- err },
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx, ln) }()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	apdu := data(t, axdr.Unsigned(5))
	inWrapper, err := wrapper.Header{Source: 1, Destination: 16, Length: uint16(len(apdu))}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	inHDLC, err := hdlc.Frame{Destination: hdlc.ClientAddress(16), Source: hdlc.ClientAddress(1), Control: hdlc.UI, Info: append([]byte("\xE6\xE7\x00"), apdu...)}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	a, b := dial(), dial()
	for _, conn := range []net.Conn{a, b} {
		frame := append(slices.Clone(inWrapper), apdu...)
		if conn == b {
			frame = inHDLC
		}
		for _, octet := range frame { // in the smallest pieces
			if _, err := conn.Write([]byte{octet}); err != nil {
				t.Fatal(err)
			}
		}
		from := <-got
		if from.Net.String() != conn.LocalAddr().String() || (conn == b) != (from.Station.Size > 0) {
			t.Errorf("from %+v", from)
		}
	}
	// More connections than there is room for: the one that was silent for
	// longest makes room, and that is told.
	conns := []net.Conn{a}
	for range maxSenders {
		conns = append(conns, dial())
	}
	if err := <-told; !strings.Contains(err.Error(), "over 64 connections") {
		t.Error(err)
	}
	last := conns[len(conns)-1]
	other := data(t, axdr.Unsigned(6))
	if _, err := last.Write(append(slices.Clone(inWrapper), other...)); err != nil {
		t.Fatal(err)
	}
	if from := <-got; from.Net.String() != last.LocalAddr().String() {
		t.Errorf("from %v", from)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	_ = last.SetReadDeadline(time.Now().Add(20 * time.Second)) // of a test that fails
	if _, err := last.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the connection is open: %v", err)
	}
}

// TestAStormOfDatagrams sends more than the machine keeps while nothing is
// taken: how many were dropped is told, to the last.
func TestAStormOfDatagrams(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const storm = 20000
	release, taken, told := make(chan struct{}), 0, make(chan error, storm)
	last := make(chan int, 1)
	r := &Receiver{
		Now: newHeard().Now,
		Got: func(_ Sender, p Pushed) (func() error, error) {
			<-release
			if taken++; p.Rows[0].Value.String() == "2" {
				select {
				case last <- taken:
				default:
				}
			}
			return nil, nil
		},
		Bad: func(_ Sender, err error) { told <- err },
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.ServePackets(ctx, conn) }()
	sender, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	datagram := func(v uint8) []byte {
		apdu := append([]byte{0x0F, 0, 0, 0, 0, 0}, axdrOf(t, axdr.Unsigned(v))...)
		b, err := wrapper.Header{Source: 1, Destination: 16, Length: uint16(len(apdu))}.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return append(b, apdu...)
	}
	for range storm {
		if _, err := sender.Write(datagram(1)); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	var n int
	for again := time.NewTicker(10 * time.Millisecond); n == 0; { // till there is room
		if _, err := sender.Write(datagram(2)); err != nil {
			t.Fatal(err)
		}
		select {
		case n = <-last:
			again.Stop()
		case <-again.C:
		case <-t.Context().Done():
			t.Fatal("the last never came")
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	close(told)
	var errs []error
	for err := range told {
		if errs = append(errs, err); !errors.Is(err, ErrLost) {
			t.Error(err)
		}
	}
	if n < storm && len(errs) == 0 {
		t.Errorf("%d of %d taken, and nothing told", n, storm)
	}
	t.Logf("%d of %d taken: %v", n, storm, errs)
}

func axdrOf(t *testing.T, v axdr.Value) []byte {
	t.Helper()
	b, err := v.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
