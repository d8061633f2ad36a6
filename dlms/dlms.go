// Package dlms is a client for DLMS/COSEM meters (IEC 62056-5-3 and 62056-6-2):
// it opens an association with a logical device, reads and sets attributes and
// runs methods, by logical or by short names, and decodes what meters push.
//
//	what an object means       Profile, ReadLayout, ReadRegister, …     IEC 62056-6-2
//	many in one request        ReadList, SetList, ActionList, Access    IEC 62056-5-3, 9
//	one, in blocks if long     Get, Set, Action                         likewise
//	  names and data           dlms/obis, dlms/axdr                     IEC 62056-6-1, IEC 61334-6
//	each APDU, if wanted       dlms/security: ciphering                 IEC 62056-5-3, 7.2
//	each APDU, if too long     general block transfer                   IEC 62056-5-3, 9.5
//	Transport:
//	  to a meter behind one    dlms/gateway                             DLMS UA 1000-2
//	  serial line              dlms/hdlc                                IEC 62056-46
//	  before it, optical head  dlms/modee                               IEC 62056-21, annex B
//	  TCP and UDP              dlms/wrapper                             IEC 62056-47
//	  power line               dlms/llc                                 IEC 61334-4-32
//
// dlms/dlmstest is a meter in memory to test all of it with.
//
// A conversation:
//
//	AARQ  →            who wants to talk, with what password, what for
//	      ←  AARE      granted or refused, the services and APDU size granted
//	GET   →
//	      ←  response  data, or why not; or the first of several blocks
//	NEXT  →
//	      ←  block     until the last
//	      ←  push      at any time: Options.Notify, ParseNotification
//	RLRQ  →
//	      ←  RLRE
//
// The package opens no connection, keeps no time and logs nothing: the
// Transport has the deadlines. What it decodes aliases no buffer.
package dlms

import (
	"context"
	"fmt"

	"gridgate/dlms/obis"
	"gridgate/dlms/security"
)

// Transport carries APDUs between the client and one logical device. The
// client sends, then receives until it has its answer.
type Transport interface {
	// Send sends one APDU.
	Send(ctx context.Context, apdu []byte) error
	// Receive waits for the next APDU from the logical device and appends it
	// to b. It gives up by itself when nothing comes within its time-out.
	Receive(ctx context.Context, b []byte) ([]byte, error)
}

// Mechanism is how the client shows who it is (IEC 62056-5-3, 7.2.4).
type Mechanism uint8

// The mechanisms.
const (
	NoAuthentication Mechanism = 0 // lowest level: nothing shown
	LLS              Mechanism = 1 // low level: a password in the clear
)

// Conformance is a set of services, as proposed and as granted (IEC 62056-5-3,
// 9.4.6.1). The bit that the standard numbers 0 is the highest of the 24.
type Conformance uint32

// The services.
const (
	GeneralProtection    Conformance = 1 << (23 - 1)
	GeneralBlockTransfer Conformance = 1 << (23 - 2)
	Read                 Conformance = 1 << (23 - 3) // short names
	Write                Conformance = 1 << (23 - 4) // short names
	UnconfirmedWrite     Conformance = 1 << (23 - 5) // short names
	Attribute0Set        Conformance = 1 << (23 - 8)
	PriorityManagement   Conformance = 1 << (23 - 9)
	Attribute0Get        Conformance = 1 << (23 - 10)
	BlockTransferGet     Conformance = 1 << (23 - 11)
	BlockTransferSet     Conformance = 1 << (23 - 12)
	BlockTransferAction  Conformance = 1 << (23 - 13)
	MultipleReferences   Conformance = 1 << (23 - 14)
	InformationReport    Conformance = 1 << (23 - 15) // short names
	DataNotification     Conformance = 1 << (23 - 16)
	Access               Conformance = 1 << (23 - 17)
	ParameterizedAccess  Conformance = 1 << (23 - 18) // short names
	Get                  Conformance = 1 << (23 - 19)
	Set                  Conformance = 1 << (23 - 20)
	SelectiveAccess      Conformance = 1 << (23 - 21)
	EventNotification    Conformance = 1 << (23 - 22)
	Action               Conformance = 1 << 0
)

// Has says whether all services of s are in c.
func (c Conformance) Has(s Conformance) bool { return c&s == s }

// Attribute names an attribute of a COSEM object, or a method of one.
type Attribute struct {
	Class uint16
	Code  obis.Code
	ID    int8
}

// String gives the name as readings carry it: 1-0:1.8.0*255/3:2.
func (a Attribute) String() string { return fmt.Sprintf("%v/%d:%d", a.Code, a.Class, a.ID) }

// Range selects the rows of a profile generic by time (IEC 62056-6-2, 4.3.6,
// selective access, range_descriptor), all columns, both ends included.
type Range struct {
	// Clock is the column that From and To are compared with; the zero value
	// is the time of the clock, 0-0:1.0.0*255/8:2.
	Clock    Attribute
	From, To DateTime
}

// Options is what an association is asked for. The zero value asks for an
// association without authentication.
type Options struct {
	Mechanism Mechanism
	Password  Secret // for LLS and HLS, but for 5 and 7; kept, not copied
	Security  Security
	// Conformance is the services proposed; 0 is DefaultConformance, or
	// DefaultShortNameConformance.
	Conformance Conformance
	// MaxPDU is the longest APDU that the client takes, in octets; 0 is 4096.
	MaxPDU uint16
	// InvokeID is the invoke id of every request, 1 to 15, as some clients
	// do. 0 counts, so that an answer that comes late is told from the one
	// that is waited for.
	InvokeID uint8
	// MaxAnswer is how long an answer of several blocks may become, in
	// octets; 0 is 1 MiB.
	MaxAnswer int
	// ShortNames asks for short-name referencing, which some old meters have
	// only: see Client.LoadNames.
	ShortNames bool
	// Window is how many blocks of a general block transfer the meter may send
	// in a row, 1 to 63; 0 is 1.
	Window uint8
	// GeneralBlocks sends requests that may have long answers as a general
	// block, where that is granted, so that the meter answers likewise and
	// knows Window from the start: 7 octets more for each request, and no
	// waiting after the first block of an answer.
	GeneralBlocks bool
	// Repeat sends a request again, once, that nothing answers in time and that
	// does no harm twice: an association without any authentication, and
	// reading by logical name while requests have numbers (InvokeID 0). It is
	// for transports that lose APDUs, as UDP does, and where answers come late
	// or twice. What has no help is a request that comes late or twice to a
	// meter that gives a long answer in blocks: that begins anew.
	Repeat bool
	// Repeats is how often in a row Repeat sends a request again; 0 is once.
	Repeats uint8
	// Quirks is what the model does differently.
	Quirks Quirks
	// Notify, if not nil, is handed the notifications that come while the
	// client waits for an answer: see ParseNotification. The APDU is the
	// client's: it is good until Notify returns.
	Notify func(apdu []byte)
}

// DefaultConformance is what a client proposes: all that it can do. A meter
// grants what it has of that, and leaves out what it does not know (IEC
// 62056-5-3, 9.4.6.1). GeneralProtection goes with it where the Security given
// uses a general form. What is granted the client does not use for its own
// sake: it asks by Get and the blocks of that service, and takes general blocks
// where the meter sends them, or Options.GeneralBlocks says so.
const DefaultConformance = BlockTransferGet | Get | SelectiveAccess | MultipleReferences |
	PriorityManagement | Attribute0Get | Set | Action | BlockTransferSet | BlockTransferAction |
	GeneralBlockTransfer | Access | DataNotification | EventNotification

const (
	defaultMaxPDU    = 4096
	defaultMaxAnswer = 1 << 20
)

// Association is what the meter granted.
type Association struct {
	Conformance Conformance
	// MaxPDU is the longest APDU that the meter takes, in octets; 0 is no limit.
	MaxPDU uint16
	// VAA is the base name: 0007 for logical-name referencing.
	VAA uint16
	// MeterTitle is the meter's system title, where the association is
	// protected or authenticated on a high level and the meter gives one.
	MeterTitle security.Title
	// MeterCertificate is what the meter says is that of its signing key (DER),
	// "" for none. See Security.Trust.
	MeterCertificate string
}
