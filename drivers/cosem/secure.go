package cosem

import (
	"context"
	"errors"
	"fmt"
	"os"

	"gridgate/dlms"
	"gridgate/dlms/security"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// publicClient is the client that meters let in without credentials.
const publicClient = 16

// counterStep is how many invocation counters are reserved at a time: about a
// day's reading.
const counterStep = 1024

// counterMargin is how far above the meter's counter a key that the store does
// not know begins: whoever used the key before may have sent what the meter
// did not take.
const counterMargin = 1 << 16

// receivedLoss is how many counters of a meter's answers a crash may forget:
// about half a day's reading. What it forgets, somebody on the line can send
// again once after it. With a high-level authentication, that is of no use to
// him: the meter's proof is made of a challenge of ours that is new, and raises
// the counter above all that is old before a value is taken. With auth=none and
// auth=lls beside security he can have readings of the last hours taken for new
// ones. Writing each counter would cost a commit a visit.
const receivedLoss = 256

// Counters keeps which invocation counters were used and received, over crashes
// and power cuts. It is shared by all that use the same key and title.
type Counters interface {
	security.Store
	security.Received
	// KnownCounters says whether counters of that title and key were ever
	// reserved here.
	KnownCounters(title security.Title, key security.KeyID) (bool, error)
}

// ErrCounter says that there is no invocation counter that the meter would
// take and that was surely not used before.
var ErrCounter = errors.New("invocation counter")

// mechanism gives the authentication mechanism that an address names.
func mechanism(auth string) dlms.Mechanism {
	switch auth {
	case AuthLLS:
		return dlms.LLS
	case AuthHLS2:
		return dlms.HLS
	case AuthMD5:
		return dlms.HLSMD5
	case AuthSHA1:
		return dlms.HLSSHA1
	case AuthGMAC:
		return dlms.HLSGMAC
	case AuthSHA256:
		return dlms.HLSSHA256
	case AuthECDSA:
		return dlms.HLSECDSA
	}
	return dlms.NoAuthentication
}

// usesKeys says whether what is sent has invocation counters in it.
func (m *Meter) usesKeys() bool {
	return m.cfg.Auth == AuthGMAC || m.cfg.Security.Policy != security.Unprotected
}

// options are what the association is asked for.
func (m *Meter) options() dlms.Options {
	o := dlms.Options{Mechanism: mechanism(m.cfg.Auth), Security: m.cfg.Security, ShortNames: m.cfg.ShortNames, Repeat: m.cfg.Datagrams, Quirks: m.quirks()}
	if o.Mechanism != dlms.NoAuthentication {
		o.Password = m.cfg.Password
	}
	o.Security.Counter, o.Security.Received = m.counter, &m.received
	m.lossy(&o)
	return o
}

// anchor sees to it that the counters of a key that the store does not know
// begin above what the meter took: from another store, that was lost or is in
// the gateway that was here before.
func (m *Meter) anchor(ctx context.Context) error {
	if !m.usesKeys() || m.anchored {
		return nil
	}
	if m.cfg.Counters == nil {
		return fmt.Errorf("%w: no place is given to keep it", ErrCounter)
	}
	title, key := m.cfg.Security.Title, m.cfg.Security.Keys.Encryption.ID()
	m.received.Keep(m.cfg.Counters, receivedLoss, key)
	if m.counter = security.NewCounter(m.cfg.Counters, title, m.cfg.Security.Keys.Encryption, counterStep); m.countsByClock() {
		m.counter = security.NewCounter(clocked{m.cfg.Counters, m.cfg.Now}, title, m.cfg.Security.Keys.Encryption, clockStep)
	}
	known, err := m.cfg.Counters.KnownCounters(title, key)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCounter, err)
	}
	if !known {
		last, err := m.firstCounter(ctx)
		if err != nil {
			return err
		}
		next := uint64(last) + 1 + counterMargin
		if !m.countsByClock() && next > 1<<31 {
			return fmt.Errorf("alarm: %w: the meter says that %d were used of this key, over half of all there are: change the key "+
				"(or, if that is true and well, `gridgate counters accept -sent %d` for this meter)", ErrCounter, last, last)
		}
		if err := m.cfg.Counters.Raise(title, key, uint32(next)); err != nil {
			return fmt.Errorf("%w: %w", ErrCounter, err)
		}
	}
	m.anchored = true
	return nil
}

// firstCounter gives a counter that none that was used before is above.
func (m *Meter) firstCounter(ctx context.Context) (uint32, error) {
	if !m.countsByClock() {
		return m.readCounter(ctx)
	}
	return clockCounter(m.cfg.Now())
}

// readCounter reads, as the public client, the last invocation counter that
// the meter took.
func (m *Meter) readCounter(ctx context.Context) (last uint32, err error) {
	last, began, err := m.readCounterOnce(ctx)
	if isReject(err) && ctx.Err() == nil {
		last, began, err = m.readCounterOnce(ctx)
	}
	if err != nil && !began {
		return 0, unreachable(err)
	}
	if err != nil {
		return 0, m.noCounter(err)
	}
	return last, nil
}

func (m *Meter) readCounterOnce(ctx context.Context) (last uint32, began bool, err error) {
	err = m.line.Do(ctx, m.settings(), func(ctx context.Context, port line.Port) error {
		began = true
		way := m.connect(port, publicClient)
		m.link, way.bare = way, true
		defer way.forget()
		if last, err = m.askCounter(ctx, port, way); err != nil {
			way.hangUp(ctx, err)
			m.drop(port)
		}
		return err
	})
	return last, began, err
}

// noCounter explains why the counter cannot be read.
func (m *Meter) noCounter(err error) error {
	why := m.noAnswer(publicClient, err)
	switch {
	case isReject(err):
		return fmt.Errorf("%w: asking for it as the public client: %w", ErrCounter, why)
	case errors.Is(why, meter.ErrNoAnswer):
		return fmt.Errorf("%w: asking for it as the public client (has the meter no such client? ic=none): %w", ErrCounter, why)
	}
	return fmt.Errorf("%w: reading what the meter took last, as client %d (is it in another object, ic=OBIS, or in none, ic=none?): %w",
		ErrCounter, publicClient, why)
}

func (m *Meter) askCounter(ctx context.Context, port line.Port, way *link) (uint32, error) {
	c := dlms.NewClient(way, dlms.Options{ShortNames: m.cfg.ShortNames, Repeat: m.cfg.Datagrams, Repeats: m.cfg.Repeats})
	if _, err := c.Associate(ctx); err != nil {
		return 0, err
	}
	last, err := m.highestCounter(ctx, c)
	if err != nil {
		return 0, err
	}
	if err := way.release(ctx, c); err != nil {
		m.drop(port) // what was asked for is there
	}
	return last, nil
}

// highestCounter reads the counters that the meter shows. One too high is
// safe, one too low is not: the highest counts.
func (m *Meter) highestCounter(ctx context.Context, c *dlms.Client) (highest uint32, err error) {
	found := false
	var missing error
	for _, code := range m.cfg.CounterObjects {
		v, err := c.Get(ctx, dlms.Attribute{Class: meter.ClassData, Code: code, ID: 2})
		if isRefusal(err) {
			missing = err
			continue
		}
		if err != nil {
			return 0, err
		}
		n, ok := v.Uint64()
		if !ok || n > 1<<32-1 {
			return 0, fmt.Errorf("%v: %w: %v is no counter", code, dlms.ErrMalformed, v.Tag)
		}
		highest, found = max(highest, uint32(n)), true
	}
	if !found {
		return 0, missing
	}
	return highest, nil
}

// doubtsCounter says whether err, of an association, may come of a counter that
// the meter does not take. Some meters say so, others just refuse, or keep silent.
func (m *Meter) doubtsCounter(err error) bool {
	var exception *dlms.ExceptionError
	var refusal *dlms.AssociationError
	var access dlms.AccessError
	switch {
	case !m.usesKeys() || m.associated:
		return false // the next association tells
	case m.refusesProof(err):
		return false // trying it again is what meters lock out for
	case errors.Is(err, os.ErrDeadlineExceeded) || isHangUp(err):
		doubted := m.doubted
		m.doubted = true // a meter that is off is asked once
		return !doubted
	}
	return errors.As(err, &exception) || errors.As(err, &refusal) || errors.As(err, &access)
}

// refusesProof says whether err is about credentials and cannot be about the
// counter: the request was in the clear, or the meter had deciphered one.
func (m *Meter) refusesProof(err error) bool {
	var refusal *dlms.AssociationError
	inClear := m.cfg.Security.Policy == security.Unprotected
	return errors.Is(err, dlms.ErrAuthentication) && errors.As(err, &refusal) == inClear
}

// catchUp goes on behind the meter's counter, after the failure cause. It is
// false when the counter was not behind.
func (m *Meter) catchUp(ctx context.Context, cause error) (bool, error) {
	ours, err := m.counter.Next()
	if err != nil {
		return false, err
	}
	var last uint32
	var exception *dlms.ExceptionError
	switch {
	case errors.As(cause, &exception) && exception.HasCounter && exception.Counter > 0:
		last = exception.Counter - 1
	case len(m.cfg.CounterObjects) == 0:
		return false, nil
	default:
		if last, err = m.readCounter(ctx); err != nil {
			return false, err
		}
	}
	if last < ours {
		return false, nil
	}
	err = m.counter.Resync(last)
	var jump *security.JumpError
	if errors.As(err, &jump) {
		return false, fmt.Errorf("%w: %w; look who else has the key, and what `gridgate counters` shows; if all is well, "+
			"`gridgate counters accept -sent %d` for this meter", ErrCounter, err, last)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrCounter, err)
	}
	return true, nil
}
