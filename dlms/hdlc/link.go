package hdlc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Stream is the line that frames travel on.
type Stream interface {
	io.ReadWriter
	// SetTimeout makes reads and writes give up d from now, with an error
	// whose Timeout method says true.
	SetTimeout(d time.Duration) error
}

// Config is how to speak with one meter. Zero values are good but for the
// addresses.
type Config struct {
	Client, Server Address
	// Propose is told in the SNRM; what the meter tells in its UA brings it
	// down. Zeros are the defaults; an SNRM of defaults tells nothing.
	Propose Parameters
	// Timeout is how long an answer may take to begin; 0 is 5 s.
	Timeout time.Duration
	// Wait, if not nil, gives how long an answer within the connection takes to
	// begin, as was learnt; over Timeout is Timeout. What is not there by then is
	// asked after; that wait doubles each time, and the meter is not given up
	// before it was silent for as long as without. What comes late is told by its
	// numbers.
	Wait func() time.Duration
	// Heard, if not nil, is told when a frame is there that answers what was
	// written last, where that was written once.
	Heard func()
	// InterOctet is how long the line may be silent within a frame; 0 is Timeout.
	InterOctet time.Duration
	// Pause is how long a meter that is busy is left alone; 0 is 100 ms.
	Pause time.Duration
	// Retries is how often in a row a frame is repeated, or asked after, when
	// no answer comes; 0 is 3, less is none.
	Retries int
	// MaxAPDU is the longest APDU taken from the meter, in octets; 0 is 64 KiB.
	MaxAPDU int
	// Notify, if not nil, is given the APDUs that the meter sends outside of
	// the connection (UI), whenever one comes in. They are its for the call only.
	Notify func(apdu []byte)
}

func (c Config) normal() Config {
	c.Propose = c.Propose.normal()
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	if c.InterOctet <= 0 {
		c.InterOctet = c.Timeout
	}
	if c.Pause <= 0 {
		c.Pause = 100 * time.Millisecond
	}
	if c.Retries == 0 {
		c.Retries = 3
	}
	if c.MaxAPDU <= 0 {
		c.MaxAPDU = maxAPDU
	}
	return c
}

// LLC headers (IEC 62056-46, 5.3.2): destination, source, quality.
const (
	llcToMeter   = "\xE6\xE6\x00"
	llcFromMeter = "\xE6\xE7\x00"
)

// maxAPDU is the longest APDU taken unless told, in octets.
const maxAPDU = 64 << 10

// What is put up with before a meter is given up that sends without end.
const (
	maxBusy    = 600 // answers that bring nothing, in a row
	maxRepeats = 16  // I frames repeated because the meter asked for them, in a row
	maxStrange = 64  // frames for others, and frames that break off, while one is waited for
	maxEmpty   = 16  // reads of nothing
)

// Link is the connection of a client with a meter. It is a dlms.Transport
// between Connect and Disconnect. Not safe for concurrent use.
type Link struct {
	c       Config
	stream  Stream
	in      Splitter
	chunk   [256]byte // what was read last
	out     []byte    // frames being written
	granted Parameters
	// connected says that the numbers below mean something to the meter.
	connected bool
	// doubt says that an answer may still come that was not waited for.
	doubt bool
	owed  int // commands without an UA or DM that may still come

	vs, vr uint8  // N(S) of the next I frame to send, and of the next to come
	va     uint8  // N(S) of the oldest I frame that the meter may not have
	apdu   []byte // being sent, behind its LLC header
	base   int    // octets of apdu that the meter has

	// What the current Send or Receive has come to.
	collecting bool   // I frames are taken
	collected  []byte // the APDU being received
	began      int    // where it begins in collected
	headed     bool   // its LLC header is through
	complete   bool
	tries      int           // time-outs in a row
	silent     time.Duration // that they took
	busy       int           // answers that brought nothing, in a row
	repeats    int           // I frames that the meter asked for again, in a row
	polled     bool          // an RR was sent after the last I frame
	fresh      bool          // nothing has come since what was written last
	pausing    bool          // the meter is busy: it is asked again after Pause

	// ours says that the meter sends nothing until we do: it gave the turn back.
	ours bool

	notices Notices // UI frames so far

	echo   bool // the line gives back what is written
	echoes []echo
}

// NewLink gives a link that is not connected. It sends nothing.
func NewLink(stream Stream, c Config) *Link {
	c = c.normal()
	return &Link{stream: stream, c: c, granted: Default(), notices: Notices{Max: c.MaxAPDU}}
}

// SetStream goes on with the conversation on another stream: the same line,
// lent anew.
func (l *Link) SetStream(stream Stream) { l.stream = stream }

// Granted gives what holds on the connection, from the client's point of view.
func (l *Link) Granted() Parameters { return l.granted }

// Connect makes the connection: SNRM, UA. It may be called at any time, and
// starts from the beginning. UAs have no numbers: where one to an earlier
// command may still be on its way, and the answer to an earlier request behind
// it, Connect first waits until the line is silent for Timeout.
func (l *Link) Connect(ctx context.Context) error {
	if l.doubt || l.owed > 0 {
		if err := l.drain(ctx); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	l.reset()
	var buf [32]byte
	info := buf[:0]
	if l.c.Propose != Default() {
		info, _ = l.c.Propose.AppendBinary(info)
	}
	f, err := l.command(ctx, SNRM, info)
	switch {
	case err != nil:
		return fmt.Errorf("connect: %w", err)
	case f.Control.kind() == DM:
		return fmt.Errorf("connect: %w", ErrDisconnected)
	}
	theirs, err := ParseParameters(f.Info)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	ours := l.c.Propose
	l.granted = Parameters{
		MaxInfoTx: min(ours.MaxInfoTx, theirs.MaxInfoRx), MaxInfoRx: min(ours.MaxInfoRx, theirs.MaxInfoTx),
		WindowTx: min(ours.WindowTx, theirs.WindowRx), WindowRx: min(ours.WindowRx, theirs.WindowTx),
	}
	l.connected = true
	return nil
}

// drain passes over what comes in, until nothing does.
func (l *Link) drain(ctx context.Context) error {
	for range maxBusy {
		_, err := l.next(ctx, l.c.Timeout)
		if isTimeout(err) {
			err = context.Cause(ctx)
			l.doubt, l.owed = l.doubt && err != nil, 0
			return err
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %d frames that nobody asked for", ErrSequence, maxBusy)
}

// reset forgets the connection.
func (l *Link) reset() {
	l.connected, l.granted = false, Default()
	l.in.Reset()
	l.vs, l.vr, l.va = 0, 0, 0
	l.apdu, l.base, l.ours = l.apdu[:0], 0, false
	l.notices.Reset()
	l.begin()
}

// begin starts an operation.
func (l *Link) begin() {
	l.collecting, l.collected, l.headed, l.complete = false, nil, false, false
	l.tries, l.silent, l.busy, l.repeats, l.polled, l.pausing = 0, 0, 0, 0, false, false
}

// Disconnect ends the connection: DISC, UA or DM. The meter is told even where
// the connection is in doubt.
func (l *Link) Disconnect(ctx context.Context) error {
	l.reset()
	if _, err := l.command(ctx, DISC, nil); err != nil {
		return fmt.Errorf("disconnect: %w", err)
	}
	l.doubt = l.doubt && l.owed > 0
	return nil
}

// command sends an unnumbered command until it is answered, and gives the UA
// or DM.
func (l *Link) command(ctx context.Context, c Control, info []byte) (Frame, error) {
	for {
		l.out = l.out[:0]
		if err := l.append(c, false, info); err != nil {
			return Frame{}, err
		}
		if err := l.flush(ctx); err != nil {
			return Frame{}, err
		}
		l.owed++
		f, err := l.answer(ctx)
		if !isTimeout(err) {
			return f, err
		}
		if l.tries++; l.tries > l.c.Retries {
			return Frame{}, l.exhausted(err)
		}
	}
}

// answer waits for UA, DM or FRMR.
func (l *Link) answer(ctx context.Context) (Frame, error) {
	for range maxStrange {
		f, err := l.next(ctx, l.c.Timeout)
		if err != nil {
			return Frame{}, err
		}
		switch f.Control.kind() {
		case UA, DM:
			l.owed = max(0, l.owed-1)
			return f, nil
		case FRMR:
			return Frame{}, parseReject(f.Info)
		default: // the rest of an earlier connection
		}
	}
	return Frame{}, fmt.Errorf("%w: %d frames and no answer among them", ErrSequence, maxStrange)
}

// Send sends an APDU. It returns when the last frames of it are written;
// Receive repeats them when they get lost. Where the meter did not yet
// acknowledge the APDU before, that is waited for.
func (l *Link) Send(ctx context.Context, apdu []byte) error {
	if !l.connected {
		return ErrNotConnected
	}
	if len(apdu) > l.c.MaxAPDU {
		return fmt.Errorf("apdu of %d octets: %w: at most %d", len(apdu), ErrTooLong, l.c.MaxAPDU)
	}
	l.begin()
	if err := l.send(ctx, apdu); err != nil {
		return l.lost(err)
	}
	return nil
}

func (l *Link) send(ctx context.Context, apdu []byte) error {
	if l.va != l.vs {
		if err := l.poll(ctx); err != nil {
			return err
		}
		if err := l.settle(ctx); err != nil {
			return err
		}
	}
	l.apdu = append(append(l.apdu[:0], llcToMeter...), apdu...)
	l.base = 0
	for {
		last, err := l.window(ctx)
		if err != nil || last {
			return err
		}
		if err := l.settle(ctx); err != nil {
			return err
		}
	}
}

// settle waits until the meter has all I frames.
func (l *Link) settle(ctx context.Context) error {
	for l.va != l.vs {
		if err := l.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// window sends as many I frames as may be on their way, from the first that
// the meter does not have. last says that these are the last of the APDU.
func (l *Link) window(ctx context.Context) (last bool, err error) {
	l.out, l.vs, l.polled, l.pausing = l.out[:0], l.va, false, false
	at, size := l.base, int(l.granted.MaxInfoTx)
	for n := uint8(1); ; n++ {
		info := l.apdu[at:min(at+size, len(l.apdu))]
		at += len(info)
		last = at == len(l.apdu)
		poll := last || n == l.granted.WindowTx
		if err := l.append(Information(l.vs, l.vr, poll), !last, info); err != nil {
			return false, err
		}
		l.vs = (l.vs + 1) & 7
		if poll {
			return last, l.flush(ctx)
		}
	}
}

// Receive waits for the next APDU from the meter and appends it to b. Several
// APDUs may come in one turn of the meter, as blocks that it streams do; when
// its turn is over, Receive gives it another.
func (l *Link) Receive(ctx context.Context, b []byte) ([]byte, error) {
	if !l.connected {
		return nil, ErrNotConnected
	}
	l.begin()
	l.collecting, l.collected, l.began = true, b, len(b)
	if l.ours { // an APDU came whole, and the next has to be asked for
		if err := l.poll(ctx); err != nil {
			l.collected = nil
			return nil, l.lost(err)
		}
	}
	for !l.complete {
		if err := l.step(ctx); err != nil {
			l.collected = nil
			return nil, l.lost(err)
		}
	}
	b = l.collected
	l.owed = 0 // what was asked before was answered before, or never
	l.begin()
	return b, nil
}

// lost ends the connection because of err. A meter that said so has nothing
// more to say.
func (l *Link) lost(err error) error {
	l.connected = false
	if reject := (*RejectError)(nil); !errors.As(err, &reject) && !errors.Is(err, ErrDisconnected) {
		l.doubt = true
	}
	return err
}

// isTimeout says whether the line was silent. A context that ended has a
// deadline of its own: flush and arm find that.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
