package cosem

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/hdlc"
	"gridgate/drivers/line"
)

func unhexed(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// framed gives information in a frame as customer ports send it.
func framed(t testing.TB, control hdlc.Control, info []byte) []byte {
	t.Helper()
	return framedOf(t, hdlc.Address{Upper: 0x10, Size: 1}, control, info)
}

func framedOf(t testing.TB, station hdlc.Address, control hdlc.Control, info []byte) []byte {
	t.Helper()
	b, err := hdlc.Frame{Destination: hdlc.Address{Upper: 0x20, Size: 1}, Source: station, Control: control, Info: info}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tape is a line that gives what is on it, and keeps what is written.
type tape struct {
	io.Reader
	written bytes.Buffer
}

func (t *tape) Write(b []byte) (int, error) { return t.written.Write(b) }
func (*tape) SetDeadline(time.Time) error   { return nil }
func play(h *heard, answer bool, b []byte) *tape {
	s := &tape{Reader: bytes.NewReader(b)}
	f := hdlcFrames{intake: &intake{Receiver: &h.Receiver, oneWay: !answer}, from: Sender{Line: "p1"}}
	if err := f.run(s); err != nil {
		h.errs = append(h.errs, err)
	}
	f.end()
	return s
}

// TestCustomerPorts plays what customer ports (HAN) of several makes send. The
// numbers of devices in it are made up, and the checks of those frames with them.
func TestCustomerPorts(t *testing.T) {
	t.Parallel()
	const unsure = " identity-not-proven\n"
	for name, c := range map[string]struct {
		frames [][]byte
		want   string
	}{
		"Aidon, list 1": {
			[][]byte{unhexed(t, "7EA02A410883130413E6E7000F40000000000101020309060100010700FF060000020002020F00161BC12C7E")},
			" 03-28T12:00 gateway 1-0:1.7.0=512W" + unsure,
		},
		"Aidon, an excerpt of list 3": {
			[][]byte{framed(t, hdlc.UI, unhexed(t, `E6E700 0F 40000000 00 0106
				0202 0906 0101000281FF 0A0B 4149444F4E5F5630303031
				0202 0906 0000600100FF 0A04 31323334
				0203 0906 01001F0700FF 100014 0202 0FFF 1621
				0203 0906 0100200700FF 120927 0202 0FFF 1623
				0202 0906 0000010000FF 090C 07E60A0F06140000FF000000
				0203 0906 0100010800FF 0600F9E77D 0202 0F01 161E`))},
			"1234 10-15T20:00 meter 1-1:0.2.129=AIDON_V0001 good\n" +
				"1234 10-15T20:00 meter 0-0:96.1.0=1234 good\n" +
				"1234 10-15T20:00 meter 1-0:31.7.0=2.0A good\n" +
				"1234 10-15T20:00 meter 1-0:32.7.0=234.3V good\n" +
				"1234 10-15T20:00 meter 0-0:1.0.0=2022-10-15T20:00:00+00:00 good\n" +
				"1234 10-15T20:00 meter 1-0:1.8.0=163777250Wh good\n",
		},
		// An I frame of no connection, with a flag within, and a time with the tag
		// of an octet-string.
		"Kaifa, list 1": {
			[][]byte{unhexed(t, "7EA027010201105A87E6E7000F40000000090C07E4020F06011922FF8000000201060000157EEA5E7E")},
			" 02-15T01:25 meter push.1=5502" + unsure,
		},
		"Kaifa, list 3 without codes": {
			[][]byte{framed(t, 0x10, unhexed(t, `E6E700 0F 40000000 090C 07E4070D0115000AFF800000 020E
				0907 4B464D5F303031 0904 31323334 0908 4D41313034483345
				0600000649 0600000000 0600000000 06000000BE 0600001315 0600000936
				090C 07E4070D0115000AFF800000 06027926B9 0600000000 06012E4C4C 06000994BC`))},
			"1234 07-13T21:00 meter 1-0:0.2.129=KFM_001 good\n" +
				"1234 07-13T21:00 meter 0-0:96.1.0=1234 good\n" +
				"1234 07-13T21:00 meter 0-0:96.1.7=MA104H3E good\n" +
				"1234 07-13T21:00 meter 1-0:1.7.0=1609W good\n" +
				"1234 07-13T21:00 meter 1-0:2.7.0=0W good\n" +
				"1234 07-13T21:00 meter 1-0:3.7.0=0var good\n" +
				"1234 07-13T21:00 meter 1-0:4.7.0=190var good\n" +
				"1234 07-13T21:00 meter 1-0:31.7.0=4.885A good\n" +
				"1234 07-13T21:00 meter 1-0:32.7.0=235.8V good\n" +
				"1234 07-13T21:00 meter 0-0:1.0.0=2020-07-13T21:00:10 good\n" +
				"1234 07-13T21:00 meter 1-0:1.8.0=41494201Wh good\n" +
				"1234 07-13T21:00 meter 1-0:2.8.0=0Wh good\n" +
				"1234 07-13T21:00 meter 1-0:3.8.0=19811404varh good\n" +
				"1234 07-13T21:00 meter 1-0:4.8.0=627900varh good\n",
		},
		"Kaifa, codes and values": {
			[][]byte{framed(t, 0x10, unhexed(t, `E6E700 0F 40000000 00 0208
				0906 0100000281FF 0907 4B464D5F303031 0906 0000600100FF 0904 31323334
				0906 0100200700FF 060000090F 0906 0000010000FF 090C 07E7081B0715202DFFFFC400`))},
			"1234 08-27T20:32 meter 1-0:0.2.129=KFM_001 good\n" +
				"1234 08-27T20:32 meter 0-0:96.1.0=1234 good\n" +
				"1234 08-27T20:32 meter 1-0:32.7.0=231.9V good\n" +
				"1234 08-27T20:32 meter 0-0:1.0.0=2023-08-27T21:32:45+01:00 good\n",
		},
		"Kamstrup": {
			[][]byte{framed(t, hdlc.UI, unhexed(t, `E6E700 0F 00000000 0C 07E6011801123A32FF800000 020B
				0A0E 4B616D73747275705F5630303031 0906 0101010700FF 060000033A
				0906 01011F0700FF 06000000ED 0906 0101200700FF 1200E8
				0906 0001010000FF 090C 07E50B1803000019FF800000 0906 0101010800FF 0600762EE2`))},
			" 01-24T18:58 meter push.1=Kamstrup_V0001" + unsure +
				" 01-24T18:58 meter 1-1:1.7.0=826W" + unsure +
				" 01-24T18:58 meter 1-1:31.7.0=2.37A" + unsure +
				" 01-24T18:58 meter 1-1:32.7.0=232V" + unsure +
				" 01-24T18:58 meter 0-1:1.0.0=2021-11-24T00:00:25" + unsure +
				" 01-24T18:58 meter 1-1:1.8.0=77452500Wh" + unsure,
		},
		// In general blocks that stream, the header of the LLC before the first
		// only, with the push object list in front.
		"Landis+Gyr": {
			[][]byte{
				unhexed(t, `7ea084ceff0313128be6e700e04000010000700f0001d3760c07e5061c010f1b32ff800000020e010e020412002809060008190900ff0f021200
					00020412002809060008190900ff0f01120000020412000109060000600100ff0f02120000020412000309060100010700ff0f02120000020412000309060100020700ff0f02120000b21a7e`),
				unhexed(t, `7ea07dceff0313d045e040000200006c020412000309060101010800ff0f02120000020412000309060101020800ff0f02120000020412000309060101050800ff0f0212000002041200
					0309060101060800ff0f02120000020412000309060101070800ff0f02120000020412000309060101080800ff0f02120000c1957e`),
				framedOf(t, hdlc.Address{Upper: 1, Size: 1}, hdlc.UI, unhexed(t, `e0c00003000079 0204120003090601001f0700ff0f02120000020412000309060100330700ff0f02120000020412000309060100470700ff0f02120000
					09060008190900ff 0908 3132333435363738 0600000047 0600000000 06000343f2 0600000000 060000209d 0600000000 0600000000 060001a022 120024 120011 120010`)),
			},
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHeard()
			all := bytes.Join(c.frames, nil)
			s := play(h, false, append([]byte("noise\x7E"), all...))
			if len(h.errs) != 1 || !errors.Is(h.errs[0], ErrLost) || s.written.Len() != 0 {
				t.Errorf("%v, written %x", h.errs, s.written.Bytes())
			}
			if h.rows != c.want && c.want != "" || h.rows == "" {
				t.Errorf("got\n%swant\n%s", h.rows, c.want)
			}
			if strings.HasPrefix(name, "Landis") && (!strings.Contains(h.rows, "12345678 06-28T15:27 meter 1-1:1.8.0=214002 good") || strings.Count(h.rows, "\n") != 13) {
				t.Errorf("got\n%s", h.rows)
			}
			for n := range all { // cut short it gives nothing of its last frame, and does not fail
				h := newHeard()
				play(h, false, all[:n])
				if len(h.pushes) != 0 {
					t.Fatalf("cut at %d: %s", n, h.rows)
				}
			}
		})
	}
}

func TestSegmentsOnALine(t *testing.T) {
	t.Parallel()
	apdu := append([]byte("\xE6\xE7\x00"), data(t, axdr.VisibleString("a long one"))...)
	part := func(station uint16, more bool, b []byte) []byte {
		out, err := hdlc.Frame{Segmented: more, Destination: hdlc.ClientAddress(16), Source: hdlc.Address{Upper: station, Size: 1}, Control: 0x03, Info: b}.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	h := newHeard()
	// Two stations mix, and so do those who read: that is nothing to us.
	play(h, false, bytes.Join([][]byte{
		part(1, true, apdu[:9]), part(2, true, apdu[:5]), part(1, false, apdu[9:]), part(2, false, apdu[5:]),
		framed(t, hdlc.Information(1, 2, true), []byte("\xE6\xE7\x00\xC4\x01\xC1\x00\x11\x05")), framed(t, hdlc.UA, nil),
	}, nil))
	if h.only(t, nil); len(h.pushes) != 2 {
		t.Errorf("%s", h.rows)
	}
	for i := range uint16(3 * maxStations) {
		play(h, false, part(i+1, true, apdu[:9]))
	}
	var all []byte
	for i := range uint16(maxStations + 1) {
		all = append(all, part(i+1, true, apdu[:9])...)
	}
	h.errs = nil
	play(h, false, all)
	h.only(t, ErrLost)
}

func TestAConfirmationOnALine(t *testing.T) {
	t.Parallel()
	n := dlms.Notification{Kind: dlms.DataNotificationKind, Invoke: 1<<30 | 7, Value: axdr.Unsigned(5)}
	b := framed(t, hdlc.UI, append([]byte("\xE6\xE7\x00"), notification(t, n)...))
	h := newHeard()
	if s := play(h, false, b); s.written.Len() != 0 {
		t.Errorf("written to who cannot hear: %x", s.written.Bytes())
	}
	s := play(newHeard(), true, b)
	f, err := hdlc.ParseFrame(s.written.Bytes())
	if err != nil || f.Source.Upper != 0x20 || f.Destination.Upper != 0x10 || f.Control != hdlc.UI || string(f.Info) != "\xE6\xE6\x00\x10\x40\x00\x00\x07\x00" {
		t.Errorf("%+v, %v", f, err)
	}
}

// pipeLine is a line whose other end is in hand: each opening makes a new one.
func pipeLine(t *testing.T, ends chan<- net.Conn) *line.Line {
	return line.Of("p1", func(context.Context, line.Settings) (line.Medium, error) {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { theirs.Close() })
		ends <- theirs
		return pipeMedium{ours}, nil
	})
}

type pipeMedium struct{ net.Conn }

func (pipeMedium) Discard() error            { return nil }
func (pipeMedium) Apply(line.Settings) error { return nil }
func (pipeMedium) Stale() bool               { return false }

// TestServeLine loses an octet, gives the frame up in silence, tells noise, and
// opens a line anew that was lost.
func TestServeLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan net.Conn, 4)
		l := pipeLine(t, ends)
		h := newHeard()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		listening := 0
		go func() { served <- h.ServeLine(ctx, l, LineOptions{}, func() { listening++ }) }()
		end := <-ends
		good := framed(t, hdlc.UI, append([]byte("\xE6\xE7\x00"), data(t, axdr.Unsigned(5))...))
		write := func(b []byte) {
			if _, err := end.Write(b); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		write(good[:7])
		write(good[8:]) // one octet is lost
		write(good)     // waits behind the frame that is not whole
		time.Sleep(frameSilence + time.Second)
		synctest.Wait()
		if h.only(t, ErrLost); len(h.pushes) != 1 {
			t.Errorf("%d pushes", len(h.pushes))
		}
		end.Close()
		synctest.Wait()
		if len(h.errs) != 1 || !strings.Contains(h.errs[0].Error(), "opened anew") {
			t.Errorf("%v", h.errs)
		}
		end = <-ends
		write(framed(t, hdlc.UI, append([]byte("\xE6\xE7\x00"), data(t, axdr.Unsigned(6))...)))
		if len(h.pushes) != 2 || listening != 1 {
			t.Errorf("%d pushes, told %d times that it listens", len(h.pushes), listening)
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	l := line.Of("p1", func(context.Context, line.Settings) (line.Medium, error) { return nil, os.ErrNotExist })
	if err := newHeard().ServeLine(t.Context(), l, LineOptions{}, func() {}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a line that is not there: %v", err)
	}
}

// Whatever is on a line, it is taken apart without end: a good frame behind it
// is found.
func FuzzLine(f *testing.F) {
	good := framed(f, hdlc.UI, []byte("\xE6\xE7\x00\x0F\x00\x00\x00\x00\x00\x11\x2A"))
	f.Add(good)
	f.Add(good[:9])
	f.Add([]byte{0x7E, 0xA7, 0xFF, 3, 3, 3})
	f.Fuzz(func(t *testing.T, noise []byte) {
		h := newHeard()
		play(h, false, append(append([]byte{}, noise...), good...))
		if len(h.pushes) == 0 {
			t.Fatalf("a good frame behind %x is lost: %v", noise, h.errs)
		}
	})
}
