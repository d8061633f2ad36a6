package dlmstest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"time"

	"gridgate/dlms/obis"
	"gridgate/dlms/security"
)

// The services that a meter may grant, as bits of the conformance (IEC
// 62056-5-3, 9.4.6.1).
const (
	conformanceProtection   = 0x400000
	conformanceGeneralBlock = 0x200000
	conformanceRead         = 0x100000
	conformanceWrite        = 0x080000
	conformancePriority     = 0x004000
	conformanceBlockGet     = 0x001000
	conformanceBlockSet     = 0x000800
	conformanceBlockAction  = 0x000400
	conformanceLists        = 0x000200
	conformanceAccess       = 0x000040
	conformanceParameters   = 0x000020
	conformanceGet          = 0x000010
	conformanceSet          = 0x000008
	conformanceSelective    = 0x000004
	conformanceAction       = 0x000001
)

// The services that a Login may be limited to.
const (
	// Everything is all that a Meter has.
	Everything = conformanceProtection | conformanceGeneralBlock | conformancePriority |
		conformanceBlockGet | conformanceBlockSet | conformanceBlockAction | conformanceLists |
		conformanceAccess | conformanceGet | conformanceSet | conformanceSelective | conformanceAction
	// Reading is all that takes to read.
	Reading = Everything &^ (conformanceBlockSet | conformanceBlockAction | conformanceSet | conformanceAction)
	// Plain is GET with blocks and selection: the least that is of use.
	Plain = conformanceBlockGet | conformanceGet | conformanceSelective
	// ShortNames is all that a Meter has for those who ask by short name.
	ShortNames = conformanceRead | conformanceWrite | conformanceUnconfirmed | conformanceParameters | conformanceLists
)

// Login is how a client is let in, and what it may do then.
type Login struct {
	// Mechanism is what the client must show (IEC 62056-5-3, 7.2.2.2.4): 0
	// nothing, 1 the password, 2 to 7 that it knows the secret or has the keys.
	Mechanism uint8
	// Secret is the password, or the secret of the mechanisms 2, 3, 4 and 6.
	Secret string
	// Policy is the least that requests must be protected with. A client may do
	// more, and is answered likewise.
	Policy security.Policy
	// Conformance is the most that is granted; 0 is Everything.
	Conformance uint32
	// ReadOnly refuses every SET and every method that is not the association's.
	ReadOnly bool
	// PreEstablished has the client served without an association request. It
	// cannot be released. Where there is a Policy, Title is the client's.
	PreEstablished bool
	Title          security.Title
}

// Security is the title and the keys of a Meter. All clients use the same. The
// zero value is a meter that ciphers nothing.
type Security struct {
	Suite security.Suite
	Title security.Title
	// Keys are the global keys. The security setup changes them, wrapped by
	// Master; an association keeps those that it began with.
	Keys   security.Keys
	Master security.Key
	// SigningKey is the meter's and ClientKey the clients', for mechanism 7.
	SigningKey *ecdsa.PrivateKey
	ClientKey  *ecdsa.PublicKey
	// Counter is the first invocation counter of what the meter sends: who heard
	// one of the same title and keys before takes nothing below.
	Counter uint32
	Agreement
}

// Options is what a meter is like. The zero value is a meter with nothing in
// it that lets the public client, wPort 16, in.
type Options struct {
	// Logins has clients by wPort that read only, by GET: each with the password
	// of its low level security, "" for none. Clients has more. If both are nil
	// there is the public client alone.
	Logins map[uint16]string
	// Clients has the clients by wPort. It goes before Logins.
	Clients map[uint16]Login
	// Server is the wPort of the logical device; 0 is 1.
	Server uint16
	// MaxPDU is the longest APDU that the meter sends and takes; 0 is 1024.
	MaxPDU   uint16
	Security Security
	// Zone is where the meter is: what time a date-time without deviation
	// means. nil is UTC.
	Zone    *time.Location
	Objects []Object
	// Name is the logical device name, 0-0:42.0.0, as SAP assignment gives it.
	Name string
	// Random is where challenges come from; nil is the system.
	Random io.Reader
	// Tamper, if not nil, changes the answers on their way out, header and
	// all; an empty one is silence. It may be called by several sessions at
	// once. It is for the wrapper.
	Tamper func(request, frame []byte) []byte
}

// Meter is a server in memory, by logical names and by short names, written
// from the standard and not from this project's client. It may serve any number
// of connections at once; what one of them sets the others see.
//
// Where the standard leaves it open it does this:
//
//	wrong key in the AARQ        rejected, authentication failure, and in the
//	                             user information a confirmed service error:
//	                             application reference, deciphering error
//	wrong key in a service       exception: service not allowed, deciphering error
//	counter that does not rise   exception: service not allowed, invocation counter
//	                             error, and the least counter that will be taken;
//	                             in answer to an AARQ too
//	less protection than wanted  exception: service not allowed, operation not possible
//	long answers                 by general block transfer if it is granted, else
//	                             by the blocks of the service
//	wrong proof of HLS           action result 3, and the association is over
type Meter struct {
	o      Options
	logins map[uint16]*login
	window security.Window
	store  security.Memory

	mu      sync.Mutex // one request at a time
	keys    Security   // as they are now
	counter *security.Counter
	last    uint32          // invocation counter received last
	seen    map[string]bool // transaction ids
}

// login is a Login as it is now.
type login struct {
	Login
	client uint16
}

// NewMeter gives a meter.
func NewMeter(o Options) *Meter {
	if o.Logins == nil && o.Clients == nil {
		o.Logins = map[uint16]string{16: ""}
	}
	if o.Server == 0 {
		o.Server = 1
	}
	if o.MaxPDU == 0 {
		o.MaxPDU = 1024
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	m := &Meter{o: o, keys: o.Security, logins: map[uint16]*login{}}
	for client, password := range o.Logins {
		l := Login{Secret: password, Conformance: Plain}
		if password != "" {
			l.Mechanism = 1
		}
		m.logins[client] = &login{l, client}
	}
	for client, l := range o.Clients {
		m.logins[client] = &login{l, client}
	}
	m.counter = security.NewCounter(&m.store, o.Security.Title, o.Security.Keys.Encryption, 0)
	_ = m.counter.Anchor(o.Security.Counter) // in memory, where it has no error
	return m
}

// maxClients is how many wPorts have a session on a connection; when there are
// more all are forgotten.
const maxClients = 64

// Serve serves one connection by the wrapper (IEC 62056-47) until the client
// hangs up or the stream fails. Each wPort of a client has an association of
// its own. Frames for other logical devices are not answered.
func (m *Meter) Serve(stream io.ReadWriter) error {
	sessions := map[uint16]*Session{}
	for {
		f, err := readFrame(stream)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s := sessions[f.source]
		if s == nil {
			if len(sessions) == maxClients {
				clear(sessions)
			}
			s = m.NewSession()
			sessions[f.source] = s
		}
		for _, out := range s.frame(f) {
			if len(out) == 0 {
				continue
			}
			if _, err := stream.Write(out); err != nil {
				return err
			}
		}
	}
}

// ServeHDLC serves a stream by HDLC until the client hangs up or the stream
// fails. station has the link's properties; its Answer and Ended are not used.
// Each client has an association of its own, which ends with its connection of
// the link.
func (m *Meter) ServeHDLC(stream io.ReadWriter, station Station) error {
	station = m.Station(station)
	return station.Serve(stream)
}

// Station gives s with the meter behind it: see ServeBus and ServeModeE. It is
// for one stream.
func (m *Meter) Station(s Station) Station {
	sessions := map[byte]*Session{}
	s.Answers = func(client byte, apdu []byte) [][]byte {
		session := sessions[client]
		if session == nil {
			session = m.NewSession()
			sessions[client] = session
		}
		return session.Answer(uint16(client), apdu)
	}
	s.Answer = func(client byte, apdu []byte) []byte {
		out := s.Answers(client, apdu)
		if len(out) == 0 {
			return nil
		}
		return out[0]
	}
	s.Ended = func(client byte) { delete(sessions, client) }
	return s
}

// frame answers a frame of the wrapper.
func (s *Session) frame(f frame) [][]byte {
	o := &s.meter.o
	if f.destination != o.Server {
		return nil
	}
	out := s.Answer(f.source, f.apdu)
	for i := range out {
		out[i] = f.answer(out[i])
		if o.Tamper != nil {
			out[i] = o.Tamper(f.apdu, out[i])
		}
	}
	return out
}

// find gives the object with that class and name, as the session sees it.
func (s *Session) find(class uint16, code obis.Code) (Object, bool) {
	for _, objects := range [][]Object{s.own(), s.meter.o.Objects, s.meter.builtIn()} {
		for _, o := range objects {
			if o.Class == class && o.Code == code {
				return o, true
			}
		}
	}
	return Object{}, false
}
