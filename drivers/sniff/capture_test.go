package sniff_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/drivers/sniff"
)

// segment is a packet of IPv4 with TCP in it.
func segment(src, dst uint16, seq uint32, flags byte, data string) []byte {
	tcp := binary.BigEndian.AppendUint16(nil, src)
	tcp = binary.BigEndian.AppendUint16(tcp, dst)
	tcp = binary.BigEndian.AppendUint32(tcp, seq)
	tcp = append(tcp, 0, 0, 0, 0, 5<<4, flags, 1, 0, 0, 0, 0, 0)
	tcp = append(tcp, data...)
	return ipv4(6, src < dst, tcp)
}

func ipv4(protocol byte, toMeter bool, payload []byte) []byte {
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	if !toMeter {
		ip[15], ip[19] = 2, 1
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(payload)))
	return append(ip, payload...)
}

func ethernet(packet []byte) []byte {
	head := append(make([]byte, 12), 0x08, 0x00)
	if packet[0]>>4 == 6 {
		head[12], head[13] = 0x86, 0xDD
	}
	for packet = append(head, packet...); len(packet) < 60; { // what a card sends at least
		packet = append(packet, 0)
	}
	return packet
}

// pcap writes the older format.
func pcap(order binary.AppendByteOrder, magic, link uint32, packets ...[]byte) []byte {
	b := order.AppendUint32(nil, magic)
	b = append(order.AppendUint16(order.AppendUint16(b, 2), 4), make([]byte, 8)...)
	b = order.AppendUint32(order.AppendUint32(b, 1<<16), link)
	for i, p := range packets {
		b = order.AppendUint32(order.AppendUint32(b, 1_000_000), uint32(i))
		b = order.AppendUint32(order.AppendUint32(b, uint32(len(p))), uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

// pcapng writes the newer one, with times in units of resolution.
func pcapng(order binary.AppendByteOrder, link uint16, resolution byte, ticks uint64, packets ...[]byte) []byte {
	block := func(b []byte, kind uint32, body []byte) []byte {
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
		n := uint32(12 + len(body))
		b = order.AppendUint32(order.AppendUint32(b, kind), n)
		return order.AppendUint32(append(b, body...), n)
	}
	section := order.AppendUint32(nil, 0x1A2B3C4D)
	section = append(order.AppendUint16(order.AppendUint16(section, 1), 0), bytes.Repeat([]byte{0xFF}, 8)...)
	face := order.AppendUint32(order.AppendUint16(order.AppendUint16(nil, link), 0), 1<<16)
	face = append(order.AppendUint16(order.AppendUint16(face, 9), 1), resolution, 0, 0, 0, 0, 0, 0, 0)
	b := block(nil, 0x0A0D0D0A, section)
	b = block(b, 1, face)
	b = block(b, 99, []byte("what nobody knows"))
	for _, p := range packets {
		body := order.AppendUint32(nil, 0)
		body = order.AppendUint32(order.AppendUint32(body, uint32(ticks>>32)), uint32(ticks))
		body = order.AppendUint32(order.AppendUint32(body, uint32(len(p))), uint32(len(p)))
		b = block(b, 6, append(body, p...))
	}
	return b
}

func packets(t testing.TB, file []byte) (all []string, err error) {
	t.Helper()
	err = sniff.ReadCapture(bytes.NewReader(file), func(p sniff.Packet) error {
		lost := ""
		if p.Lost {
			lost = " lost"
		}
		all = append(all, fmt.Sprintf("%s %d%s %q", p.Talk, p.From, lost, p.Data))
		return nil
	})
	return all, err
}

// Segments come in their order, once, whoever began and however they are framed.
func TestConnectionsArePutTogether(t *testing.T) {
	t.Parallel()
	const syn, ack = 2, 16
	conversation := [][]byte{
		segment(40000, 502, 99, syn, ""), segment(502, 40000, 499, syn|ack, ""),
		segment(40000, 502, 100, ack, "ab"), segment(40000, 502, 104, ack, "ef"), segment(40000, 502, 102, ack, "cd"),
		segment(40000, 502, 100, ack, "abcd"), segment(502, 40000, 500, ack, "xyz"), segment(40000, 502, 105, ack, "fgh"),
	}
	want := []string{
		`10.0.0.2:40000→10.0.0.1:502 1 "ab"`, `10.0.0.2:40000→10.0.0.1:502 1 "cd"`, `10.0.0.2:40000→10.0.0.1:502 1 "ef"`,
		`10.0.0.2:40000→10.0.0.1:502 2 "xyz"`, `10.0.0.2:40000→10.0.0.1:502 1 "gh"`,
	}
	wrap := func(f func([]byte) []byte) (all [][]byte) {
		for _, p := range conversation {
			all = append(all, f(p))
		}
		return all
	}
	head := func(n int) func([]byte) []byte {
		return func(p []byte) []byte { return append(make([]byte, n), p...) }
	}
	tagged := func(p []byte) []byte {
		return append(append(make([]byte, 12), 0x81, 0, 0, 7, 0x08, 0), p...)
	}
	little, big := binary.LittleEndian, binary.BigEndian
	for name, file := range map[string][]byte{
		"pcap":         pcap(little, 0xA1B2C3D4, 1, wrap(ethernet)...),
		"big endian":   pcap(big, 0xA1B2C3D4, 1, wrap(ethernet)...),
		"nanoseconds":  pcap(little, 0xA1B23C4D, 1, wrap(ethernet)...),
		"tagged":       pcap(little, 0xA1B2C3D4, 1, wrap(tagged)...),
		"raw":          pcap(little, 0xA1B2C3D4, 101, wrap(slices.Clone[[]byte])...),
		"cooked":       pcap(little, 0xA1B2C3D4, 113, wrap(head(16))...),
		"cooked 2":     pcap(little, 0xA1B2C3D4, 276, wrap(head(20))...),
		"loopback":     pcap(little, 0xA1B2C3D4, 0, wrap(head(4))...),
		"pcapng":       pcapng(little, 1, 6, 1, wrap(ethernet)...),
		"pcapng other": pcapng(big, 1, 9, 1, wrap(ethernet)...),
	} {
		if !sniff.IsCapture(file) {
			t.Errorf("%s is not taken for a capture", name)
		}
		if got, err := packets(t, file); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestTimesOfCaptures(t *testing.T) {
	t.Parallel()
	packet := ethernet(segment(40000, 502, 1, 16, "x"))
	want := time.Unix(1_000_000, 500_000_000)
	for name, file := range map[string][]byte{
		"micro": pcapng(binary.LittleEndian, 1, 6, 1_000_000_500_000, packet),
		"nano":  pcapng(binary.LittleEndian, 1, 9, 1_000_000_500_000_000, packet),
		"half":  pcapng(binary.LittleEndian, 1, 0x81, 2_000_001, packet),
	} {
		if err := sniff.ReadCapture(bytes.NewReader(file), func(p sniff.Packet) error {
			if !p.At.Equal(want) {
				t.Errorf("%s: %v, want %v", name, p.At, want)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// What is not in the capture is told, and what follows is read all the same.
func TestLostSegmentsAreTold(t *testing.T) {
	t.Parallel()
	all := [][]byte{segment(40000, 4059, 10, 16, "a")}
	for i := range uint32(80) {
		all = append(all, segment(40000, 4059, 100+i, 16, string(rune('A'+i%26))))
	}
	got, err := packets(t, pcap(binary.LittleEndian, 0xA1B2C3D4, 101, all...))
	if err != nil || len(got) != 81 || !strings.Contains(got[1], `lost "A"`) || strings.Contains(got[2], "lost") {
		t.Errorf("%v, %d: %q", err, len(got), got[:min(len(got), 3)])
	}
}

// Datagrams, IPv6 and serial lines.
func TestOtherPackets(t *testing.T) {
	t.Parallel()
	udp := append([]byte{0x9C, 0x40, 0x0F, 0xDB, 0, 12, 0, 0}, "ping"...)
	v6 := append([]byte{0x60, 0, 0, 0, 0, 20, 60, 64}, append(make([]byte, 15), append([]byte{1}, append(make([]byte, 15), 2)...)...)...)
	v6 = append(v6, append([]byte{17, 0, 0, 0, 0, 0, 0, 0}, udp...)...)
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"udp":    {pcap(binary.LittleEndian, 0xA1B2C3D4, 101, ipv4(17, false, udp)), `10.0.0.2:40000→10.0.0.1:4059 1 "ping"`},
		"ipv6":   {pcap(binary.LittleEndian, 0xA1B2C3D4, 1, ethernet(v6)), `[::1]:40000→[::2]:4059 1 "ping"`},
		"serial": {pcap(binary.LittleEndian, 0xA1B2C3D4, 250, append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0}, "data"...)), ` 2 "data"`},
		"user":   {pcap(binary.LittleEndian, 0xA1B2C3D4, 147, []byte("data")), ` 0 "data"`},
	} {
		if got, err := packets(t, c.file); err != nil || len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %v %q, want %q", name, err, got, c.want)
		}
	}
}

// A capture that is cut short gives what is whole, and an error unless the cut is
// between two packets.
func TestCapturesCutShort(t *testing.T) {
	t.Parallel()
	packet := ethernet(segment(40000, 502, 1, 16, "0123456789"))
	for name, file := range map[string][]byte{
		"pcap": pcap(binary.LittleEndian, 0xA1B2C3D4, 1, packet, packet), "pcapng": pcapng(binary.BigEndian, 1, 6, 1, packet, packet),
	} {
		ends := 0
		for n := range file {
			if _, err := packets(t, file[:n]); err == nil {
				ends++
			}
		}
		if ends < 2 || ends > 5 {
			t.Errorf("%s: %d places where it may end", name, ends)
		}
	}
	for _, junk := range []string{"", "abc", "hello, world, this is no capture at all"} {
		if _, err := packets(t, []byte(junk)); !errors.Is(err, sniff.ErrNotCapture) {
			t.Errorf("%q: %v", junk, err)
		}
	}
}

func FuzzCapture(f *testing.F) {
	packet := ethernet(segment(40000, 502, 1, 16, "0123456789"))
	f.Add(pcap(binary.LittleEndian, 0xA1B2C3D4, 1, packet))
	f.Add(pcapng(binary.BigEndian, 1, 6, 1, packet))
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		_ = sniff.ReadCapture(bytes.NewReader(data), func(p sniff.Packet) error {
			total += len(p.Data)
			return nil
		})
		if total > len(data) {
			t.Errorf("%d octets of %d", total, len(data))
		}
	})
}

func FuzzHex(f *testing.F) {
	f.Add([]byte("TX: 08:40:26 7E A0\nRX: 00\n# x\n> /?!\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = sniff.IsHex(data[:min(len(data), 512)])
		total := 0
		_, _ = sniff.ReadHex(bytes.NewReader(data), func(c sniff.Chunk) error {
			if len(c.Data) == 0 {
				t.Error("a chunk of nothing")
			}
			total += len(c.Data)
			return nil
		})
		if total > 2*len(data)+2 {
			t.Errorf("%d octets of %d", total, len(data))
		}
	})
}
