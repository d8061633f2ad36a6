package dlms_test

import (
	"context"
	"io"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/security"
)

// canned is a Transport that gives the same answer to everything, with the
// invoke id of the request.
type canned struct {
	answer []byte
	invoke byte
}

func (c *canned) Send(_ context.Context, apdu []byte) error {
	c.invoke = apdu[2]
	return nil
}

func (c *canned) Receive(_ context.Context, b []byte) ([]byte, error) {
	at := len(b)
	b = append(b, c.answer...)
	if c.answer[0] == 0xC4 {
		b[at+2] = c.invoke
	}
	return b, nil
}

// answering gives a client, associated, that is given that answer to every GET.
func answering(t *testing.T, answer []byte) *dlms.Client {
	t.Helper()
	aare := "\x61\x29\xA1\x09\x06\x07\x60\x85\x74\x05\x08\x01\x01\xA2\x03\x02\x01\x00\xA3\x05\xA1\x03\x02\x01\x00" +
		"\xBE\x10\x04\x0E\x08\x00\x06\x5F\x1F\x04\x00\x00\x12\x1C\x10\x00\x00\x07"
	transport := &canned{answer: []byte(aare)}
	client := dlms.NewClient(transport, dlms.Options{})
	if _, err := client.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	transport.answer = answer
	return client
}

// TestReadingAllocates little: two for each row of a profile, and nothing that
// grows besides; a number costs nothing.
func TestReadingAllocates(t *testing.T) {
	const n = 96
	rows := axdr.Array()
	for i := range n {
		rows.Items = append(rows.Items, wireRow(i, false))
	}
	profile, err := rows.AppendBinary([]byte{0xC4, 1, 0, 0})
	if err != nil {
		t.Fatal(err)
	}
	layout := wireLayout()
	client, want := answering(t, profile), dlms.Rows{Since: wireStart(), Until: wireStart().Add(24 * time.Hour)}
	ctx := t.Context()
	if got := testing.AllocsPerRun(20, func() {
		if rows, err := client.Profile(ctx, layout, want); err != nil || len(rows) != n {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
	}); got > 2*n+8 {
		t.Errorf("%v allocations for a profile of %d rows, want at most 2 a row and 8", got, n)
	}
	client, register := answering(t, []byte("\xC4\x01\x00\x00\x06\x00\x00\x04\xD2")), wireRegisters()[0]
	if got := testing.AllocsPerRun(100, func() {
		if v, err := client.Get(ctx, register); err != nil || v.Num != 1234 {
			t.Fatal(v, err)
		}
	}); got > 1 {
		t.Errorf("%v allocations for a register", got)
	}
}

// parrot is a line to a meter that answers every I frame with an APDU in as
// many frames as that takes, one after the other, and RR with the next.
type parrot struct {
	parts  [][]byte // of the information
	next   int
	ns, nr uint8
	out    []byte
	in     []byte
}

func (p *parrot) SetTimeout(time.Duration) error { return nil }

func (p *parrot) Write(b []byte) (int, error) {
	f, err := hdlc.ParseFrame(b)
	if err != nil {
		return 0, err
	}
	answer := hdlc.Frame{Destination: f.Source, Source: f.Destination, Control: hdlc.UA}
	if f.Control&0x0F != hdlc.SNRM&0x0F {
		if f.Control&1 == 0 {
			p.nr, p.next = (p.nr+1)&7, 0
		}
		answer.Control, answer.Info = hdlc.Information(p.ns, p.nr, true), p.parts[p.next]
		p.next++
		p.ns = (p.ns + 1) & 7
		answer.Segmented = p.next < len(p.parts)
	}
	p.out, err = answer.AppendBinary(p.out[:0])
	p.in = p.out
	return len(b), err
}

func (p *parrot) Read(b []byte) (int, error) {
	if len(p.in) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	return n, nil
}

// TestLinkAllocatesNothing sends an APDU and receives one of three segments.
func TestLinkAllocatesNothing(t *testing.T) {
	part := append([]byte("\xE6\xE7\x00"), make([]byte, 100)...)
	client := hdlc.Address{Upper: 16, Size: 1}
	link := hdlc.NewLink(&parrot{parts: [][]byte{part, part, part}}, hdlc.Config{Client: client, Server: hdlc.Address{Upper: 1, Size: 1}})
	ctx := t.Context()
	if err := link.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	apdu, in := make([]byte, 100), make([]byte, 0, 1024)
	if got := testing.AllocsPerRun(100, func() {
		if err := link.Send(ctx, apdu); err != nil {
			t.Fatal(err)
		}
		if b, err := link.Receive(ctx, in); err != nil || len(b) != 3*len(part)-3 {
			t.Fatal(len(b), err)
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// TestCipheringAllocates a few small pieces, as many for any APDU: what is
// opened or protected goes into the caller's buffer.
func TestCipheringAllocates(t *testing.T) {
	const runs = 100
	most := map[security.Policy]float64{security.Authenticated: 3, security.Encrypted: 4, security.AuthenticatedEncrypted: 3}
	title, keys := security.Title([]byte("GRGATE01")), security.Keys{Encryption: wireKey(0), Authentication: wireKey(0xD0)}
	for policy := range most {
		sender := security.Sender{
			Policy: policy, Title: title, Keys: keys,
			Counter: security.NewCounter(new(security.Memory), title, keys.Encryption, 1<<12),
		}
		receiver := security.Receiver{
			Policy: policy, Title: title, Keys: keys, Direction: security.FromClient, Window: new(security.Window),
		}
		plain := append([]byte{0xC4, 1, 0xC1, 0}, make([]byte, 1000)...)
		buf, sealed := make([]byte, 0, 2048), make([][]byte, runs+1)
		for i := range sealed {
			b, err := sender.Protect(nil, plain, security.Unicast, false)
			if err != nil {
				t.Fatal(err)
			}
			sealed[i] = b
		}
		i := 0
		opening := testing.AllocsPerRun(runs, func() {
			if b, err := receiver.Unprotect(buf, sealed[i]); err != nil || len(b) != len(plain) {
				t.Fatal(len(b), err)
			}
			i++
		})
		sealing := testing.AllocsPerRun(runs, func() {
			if _, err := sender.Protect(buf, plain, security.Unicast, false); err != nil {
				t.Fatal(err)
			}
		})
		if most := most[policy]; opening > most || sealing > most {
			t.Errorf("%v: %v allocations to open, %v to protect, want at most %v", policy, opening, sealing, most)
		}
	}
}
