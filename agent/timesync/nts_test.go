package timesync_test

import (
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-io/siv-go"

	"gridgate/agent/timesync"
)

// certificate makes a certificate of 127.0.0.1 that signs itself.
func certificate(t *testing.T, from, to time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: secret}, roots
}

// ntsServer is a time server with NTS (RFC 8915): it agrees on keys over TLS,
// and answers what was signed with them. chronyd with NTS was tried by hand:
// what it says of a port other than 123 is marked critical, which the package
// nts does not take, and 123 takes root.
type ntsServer struct {
	t     *testing.T
	key   net.Listener
	ntp   *net.UDPConn
	reply func(reply []byte, send func(b []byte)) // what becomes of an answer
	mu    sync.Mutex
	keys  map[string][2]cipher.AEAD // by cookie: to the server, to the client
}

const cookieLength = 96

// secured starts a server whose certificate is good from and to a time.
func secured(t *testing.T, from, to time.Time, reply func(b []byte, send func([]byte))) (at string, roots *x509.CertPool) {
	t.Helper()
	cert, roots := certificate(t, from, to)
	s := &ntsServer{t: t, reply: reply, keys: map[string][2]cipher.AEAD{}}
	var err error
	if s.ntp, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	s.key, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"ntske/1"}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(s.agree)
	all.Go(s.answer)
	t.Cleanup(func() {
		_, _ = s.key.Close(), s.ntp.Close()
		all.Wait()
	})
	return "nts://" + s.key.Addr().String(), roots
}

func record(kind uint16, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

// agree serves key exchanges, one after the other.
func (s *ntsServer) agree() {
	for {
		conn, err := s.key.Accept()
		if err != nil {
			return
		}
		if err := s.exchange(conn.(*tls.Conn)); err != nil {
			s.t.Logf("key exchange: %v", err)
		}
		_ = conn.Close()
	}
}

func (s *ntsServer) exchange(conn *tls.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	var request [16]byte // next protocol, algorithm, end
	if _, err := io.ReadFull(conn, request[:]); err != nil {
		return err
	}
	state := conn.ConnectionState()
	var pair [2]cipher.AEAD
	for i := range pair {
		key, err := state.ExportKeyingMaterial("EXPORTER-network-time-security", []byte{0, 0, 0, 15, byte(i)}, 32)
		if err != nil {
			return err
		}
		if pair[i], err = siv.NewCMAC(key); err != nil {
			return err
		}
	}
	out := slices.Concat(record(0x8001, 0, 0), record(4, 0, 15),
		record(7, binary.BigEndian.AppendUint16(nil, uint16(s.ntp.LocalAddr().(*net.UDPAddr).Port))...))
	for range 8 {
		out = append(out, record(5, s.cookie(pair)...)...)
	}
	_, err := conn.Write(append(out, record(0x8000)...))
	return err
}

// cookie makes one that stands for a pair of keys.
func (s *ntsServer) cookie(pair [2]cipher.AEAD) []byte {
	b := make([]byte, cookieLength)
	_, _ = rand.Read(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[string(b)] = pair
	return b
}

func extension(kind uint16, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	return append(binary.BigEndian.AppendUint16(b, uint16(4+len(body))), body...)
}

// answer answers what is signed.
func (s *ntsServer) answer() {
	var b [2048]byte
	for {
		n, client, err := s.ntp.ReadFromUDP(b[:])
		if err != nil {
			return
		}
		if reply := s.answerTo(b[:n]); reply != nil {
			s.reply(reply, func(b []byte) { _, _ = s.ntp.WriteToUDP(b, client) })
		}
	}
}

func (s *ntsServer) answerTo(request []byte) []byte {
	var unique, used []byte
	for at := 48; at+4 <= len(request); {
		kind, n := binary.BigEndian.Uint16(request[at:]), int(binary.BigEndian.Uint16(request[at+2:]))
		body := request[at+4 : at+n]
		switch kind {
		case 0x0104:
			unique = body
		case 0x0204:
			used = body
		case 0x0404:
			s.mu.Lock()
			pair, known := s.keys[string(used)]
			delete(s.keys, string(used)) // each serves once
			s.mu.Unlock()
			sealed := body[4+16:]
			if !known || body[1] != 16 {
				s.t.Error("a cookie that was not given, or was used")
				return nil
			}
			if _, err := pair[0].Open(nil, slices.Clone(body[4:20]), slices.Clone(sealed[:binary.BigEndian.Uint16(body[2:])]), request[:at]); err != nil {
				s.t.Errorf("a request is not signed: %v", err)
				return nil
			}
			return s.sign(request, unique, pair[1], s.cookie(pair))
		}
		at += n
	}
	s.t.Error("a request is not signed")
	return nil
}

// sign makes an answer.
func (s *ntsServer) sign(request, unique []byte, key cipher.AEAD, cookie []byte) []byte {
	b := make([]byte, 48)
	b[0], b[1], b[3] = 4<<3|4, 2, 0xEC
	copy(b[24:32], request[40:48])
	now := time.Now()
	for _, at := range []int{16, 32, 40} {
		binary.BigEndian.PutUint32(b[at:], uint32(now.Unix()+2208988800))
		binary.BigEndian.PutUint32(b[at+4:], uint32(uint64(now.Nanosecond())<<32/1e9))
	}
	b = append(b, extension(0x0104, unique...)...)
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce)
	sealed := key.Seal(nil, nonce, extension(0x0204, cookie...), slices.Clone(b))
	body := binary.BigEndian.AppendUint16([]byte{0, 16}, uint16(len(sealed)))
	return append(b, extension(0x0404, slices.Concat(body, nonce, sealed)...)...)
}

func asIs(b []byte, send func([]byte)) { send(b) }

func TestNTS(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at, roots := secured(t, now.Add(-time.Hour), now.Add(time.Hour), asIs)
	clock, s := observe(t, timesync.Config{Roots: roots}, at)
	expect(t, s, timesync.Synchronised, good)
	within(t, clock, 0, 10*time.Second)

	_, s = observe(t, timesync.Config{}, at)
	expect(t, s, timesync.Unsynchronised, timesync.Unreachable)
	if !strings.Contains(s.Servers[0].Reason, "certificate") {
		t.Errorf("a certificate that nobody knows: %q", s.Servers[0].Reason)
	}
}

// A clock that nobody vouches for tells nothing of certificates, but that one
// is over which was over before the last known time.
func TestNTSWithAWrongClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at, roots := secured(t, now.Add(-time.Hour), now.Add(time.Hour), asIs)
	for _, off := range []time.Duration{-40 * 365 * 24 * time.Hour, 40 * 365 * 24 * time.Hour} {
		_, s := observe(t, timesync.Config{Roots: roots, System: machine{off: off}}, at)
		expect(t, s, timesync.Unsynchronised, good) // observed only: it stays wrong
		if got := s.Offset + off; got.Abs() > time.Second {
			t.Errorf("a clock that is %v off is said to be %v off", off, -s.Offset)
		}
	}
	at, roots = secured(t, now.Add(-2*time.Hour), now.Add(-time.Hour), asIs)
	_, s := observe(t, timesync.Config{Roots: roots, Memory: &memory{last: now}, System: machine{off: -24 * time.Hour}}, at)
	expect(t, s, timesync.Unsynchronised, timesync.Unreachable)
}

// Without its authenticator an answer is none, and one that does not fit is
// none either.
func TestNTSForged(t *testing.T) {
	t.Parallel()
	now := time.Now()
	later := func(reply []byte) []byte {
		b := slices.Clone(reply)
		for _, at := range []int{32, 40} {
			binary.BigEndian.PutUint32(b[at:], binary.BigEndian.Uint32(b[at:])+3600)
		}
		return b
	}
	none := []timesync.Verdict{timesync.Unreachable}
	for name, tt := range map[string]struct {
		want   []timesync.Verdict
		change func(reply []byte) []byte
	}{
		"as it came":             {[]timesync.Verdict{good}, func(b []byte) []byte { return b }},
		"another time":           {none, later},
		"nothing is signed":      {none, func(b []byte) []byte { return later(b)[:48] }},
		"fields of no length":    {none, func(b []byte) []byte { return append(later(b)[:48], make([]byte, 64)...) }},
		"an empty authenticator": {none, func(b []byte) []byte { return append(later(b)[:48+36], extension(0x0404, make([]byte, 12)...)...) }},
		"a long authenticator": {none, func(b []byte) []byte {
			return append(later(b)[:48+36], extension(0x0404, append([]byte{0, 16, 255, 255}, make([]byte, 36)...)...)...)
		}},
		"a refusal": {none, func(b []byte) []byte { b[1] = 0; copy(b[12:], "DENY"); return b }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, roots := secured(t, now.Add(-time.Hour), now.Add(time.Hour), func(b []byte, send func([]byte)) { send(tt.change(b)) })
			cfg := timesync.Config{Roots: roots}
			if name != "as it came" {
				cfg.AnswerWithin = time.Second
			}
			_, s := observe(t, cfg, at)
			if !slices.Equal(verdicts(s), tt.want) {
				t.Errorf("%v (%s), want %v", verdicts(s), s.Servers[0].Reason, tt.want)
			}
		})
	}
}
