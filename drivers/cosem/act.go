package cosem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// What changes a meter goes out once in a visit. A visit may begin anew for
// many reasons (the association was kept and is gone, it broke, the counter was
// behind): so what was sent is remembered over all its associations, and where
// no answer came the next one looks what is the case, and sends nothing.

// acting is what was done of the acts of a visit, over its associations.
type acting struct {
	ask      meter.Ask
	outcomes []meter.Outcome
	next     int  // which is on
	sent     bool // what changes the meter went out for it, and no answer has come
	keys     *keyTrial
	tunnel   *meter.Tunnel // is to be opened
}

func newActing(ask meter.Ask) acting {
	a := acting{ask: ask, outcomes: make([]meter.Outcome, len(ask.Acts))}
	for i, act := range ask.Acts {
		a.outcomes[i].Act = act
	}
	return a
}

// acts does what is ordered, one after the other, up to the first that is not
// done.
func (v *visit) acts(ctx context.Context) error {
	a := &v.done.acts
	for a.next < len(a.outcomes) {
		o := &a.outcomes[a.next]
		if err := v.act(ctx, o); err != nil {
			return err
		}
		if a.next++; o.Result != meter.Done {
			a.next = len(a.outcomes)
		}
	}
	return nil
}

// act does one act. An error is about the association or the line.
func (v *visit) act(ctx context.Context, o *meter.Outcome) error {
	a := &v.done.acts
	if o.Result != meter.NotTried && !a.sent {
		return nil
	}
	err := v.proveSerial(ctx)
	if err == nil && a.sent {
		return v.lookAgain(ctx, o)
	}
	if err == nil {
		err = v.carryOut(ctx, o)
	}
	if err == nil {
		o.Err = nil
		return nil
	}
	if o.At == (meter.Stamp{}) {
		o.At = v.cfg.Now()
	}
	switch o.Err = err; {
	case a.sent:
		if o.Result == meter.NotTried {
			o.Result = meter.Unknown
		}
		o.Err = v.explain(err)
		return err
	case !isOfOne(err) && !isRule(err):
		return err // nothing is known yet: it was not come to, or goes on
	case o.Result == meter.NotTried && o.Sent:
		o.Result = meter.Failed
	case o.Result == meter.NotTried:
		o.Result = meter.Refused
	}
	return nil
}

// isRule says whether it was us who did not want to.
func isRule(err error) bool {
	return errors.Is(err, meter.ErrMustNot) || errors.Is(err, meter.ErrCannotAct) || errors.Is(err, meter.ErrNotProven) || errors.Is(err, errContradicts)
}

// errContradicts says that a meter said that it did what it does not show.
var errContradicts = errors.New("the meter took the order and does not show it")

// mustNot and cannot say why an act is not done.
func mustNot(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{meter.ErrMustNot}, args...)...)
}

func cannot(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{meter.ErrCannotAct}, args...)...)
}

// proveSerial has the meter say who it is at once before anything is done to
// it, also on an association that was kept.
func (v *visit) proveSerial(ctx context.Context) error {
	ordered := v.done.acts.ask.Serial
	if v.cfg.Serial == "" && ordered == "" {
		return fmt.Errorf("%w: neither the configuration nor the order has one to compare it with", meter.ErrNotProven)
	}
	if !v.fresh && !v.proved { // it was asked for before this visit, if at all
		v.known = false
	}
	if err := v.identify(ctx); err != nil {
		return err
	}
	v.proved = true
	who := v.got.Identity
	if !who.Proven {
		return fmt.Errorf("%w: configured %q, found %q", meter.ErrNotProven, who.Want, who.Found)
	}
	if ordered == "" || isSerial(ordered, who.Found) {
		return nil
	}
	return fmt.Errorf("%w: ordered for %q, found %q", meter.ErrNotProven, ordered, who.Found)
}

func (v *visit) carryOut(ctx context.Context, o *meter.Outcome) error {
	switch act := o.Act.(type) {
	case meter.Disconnect:
		return v.disconnect(ctx, act, o)
	case meter.Connect:
		return v.reconnect(ctx, act, o)
	case meter.Limit:
		return v.limit(ctx, act, o)
	case meter.Calendar:
		return v.calendar(ctx, act, o)
	case meter.SpecialDays:
		return v.specialDays(ctx, act, o)
	case meter.Script:
		return v.script(ctx, act, o)
	case meter.ChangeKeys:
		return v.changeKeys(ctx, act, o)
	case meter.Image:
		return v.image(ctx, act, o)
	case *meter.Tunnel:
		if len(v.done.acts.outcomes) > 1 {
			return mustNot("%s beside other acts", act.Name())
		}
		v.done.acts.tunnel, o.Result, o.At = act, meter.Done, v.cfg.Now()
		return nil
	case meter.Look:
		facts, err := v.look(ctx, act.At)
		if err == nil {
			o.Result, o.At, o.After = meter.Done, v.cfg.Now(), facts
		}
		return err
	}
	return cannot("%T", o.Act)
}

// send sends what changes the meter. Where err is the meter's own word, or it
// was never sent, that is known; else it may have been done.
func (v *visit) send(o *meter.Outcome, what func() error) error {
	a, before := &v.done.acts, o.Sent
	a.sent, o.Sent, o.At = true, true, v.cfg.Now()
	err := what()
	switch {
	case err == nil:
		a.sent = false
	case isRefusal(err):
		a.sent, o.Sent = false, before
	}
	return err
}

// harmless sends what changes nothing that is in force, and may be sent twice.
func (v *visit) harmless(ctx context.Context, o *meter.Outcome, what func() error) error {
	before := o.Sent
	o.Sent, o.At = true, v.cfg.Now()
	err := v.tried(ctx, what())
	if isRefusal(err) {
		o.Sent = before
	}
	return err
}

// lookAgain is for an act that was sent on an association before, and not
// answered: it is not sent again.
func (v *visit) lookAgain(ctx context.Context, o *meter.Outcome) error {
	facts, err := v.look(ctx, o.Act)
	switch {
	case err == nil:
		o.After = facts
	case isOfOne(err):
		o.After = []meter.Fact{fact("read back", "%v", err)}
	default:
		return err
	}
	v.done.acts.sent = false
	return nil
}

// concluded says what came of an act that the meter said it did: where it
// cannot be read back its word counts.
func (v *visit) concluded(o *meter.Outcome, ok bool, err error) error {
	switch {
	case err == nil && !ok:
		o.Result = meter.Failed
		return fmt.Errorf("%w: %s", errContradicts, shown(o.After))
	case err == nil:
	case isOfOne(err):
		o.After = append(o.After, fact("read back", "%v", err))
	default:
		o.Result, v.done.acts.sent = meter.Done, true // look on the next association
		return err
	}
	o.Result = meter.Done
	return nil
}

func shown(facts []meter.Fact) string {
	s := ""
	for i, f := range facts {
		if i > 0 {
			s += ", "
		}
		s += f.Name + " " + f.Value
	}
	return s
}

// look reads what an act is about.
func (v *visit) look(ctx context.Context, act meter.Act) ([]meter.Fact, error) {
	switch act := act.(type) {
	case meter.Disconnect:
		return v.lookBreaker(ctx, act.Object)
	case meter.Connect:
		return v.lookBreaker(ctx, act.Object)
	case meter.Limit:
		l, err := v.limiter(ctx, act.Object)
		return l.facts(), err
	case meter.Calendar:
		return v.lookCalendar(ctx, act.Object)
	case meter.SpecialDays:
		return v.lookSpecialDays(ctx, act.Object)
	case meter.Script:
		return v.lookBilling(ctx)
	case meter.Image:
		return v.lookImage(ctx, act.Object)
	}
	return nil, nil // that it answers is all that there is to see
}

// lookBack looks, after a visit that ended when it was not known what became of
// an act, what is the case.
func (m *Meter) lookBack(ctx context.Context, done *progress) (meter.Got, error) {
	done.known = false // who answers is compared with what is configured and ordered
	return m.converse(ctx, func(ctx context.Context, v *visit) error {
		v.done = done
		if err := v.identify(ctx); err != nil {
			return err
		}
		return v.acts(ctx)
	})
}

// settle looks up to looks times, a second apart, whether what was ordered
// shows: contacts take a moment.
func (v *visit) settle(ctx context.Context, shows func() (bool, error)) (bool, error) {
	const looks = 6
	for n := 1; ; n++ {
		ok, err := shows()
		if ok || err != nil || n == looks {
			return ok, err
		}
		if err := v.pause(ctx, time.Second); err != nil {
			return false, err
		}
	}
}

// pause waits, unless a test has it otherwise.
func (m *Meter) pause(ctx context.Context, d time.Duration) error {
	if m.cfg.pause != nil {
		return m.cfg.pause(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// some gives attributes of an object, each of which must be had.
func (v *visit) some(ctx context.Context, class uint16, code obis.Code, ids ...int8) ([]axdr.Value, error) {
	values := make([]axdr.Value, len(ids))
	var refusal error
	questions := make([]question, len(ids))
	for i, id := range ids {
		questions[i] = question{attribute: dlms.Attribute{Class: class, Code: code, ID: id}, take: func(data axdr.Value, err error) {
			if values[i] = data; err != nil && refusal == nil {
				refusal = err
			}
		}}
	}
	if err := v.readAll(ctx, questions); err != nil {
		return nil, err
	}
	if refusal != nil {
		return nil, cannot("%v: %w", dlms.ClassName(class), refusal)
	}
	return values, nil
}

// or gives the code, or the one of the standard.
func or(code, standard obis.Code) obis.Code {
	if code == (obis.Code{}) {
		return standard
	}
	return code
}

func fact(name, format string, args ...any) meter.Fact {
	return meter.Fact{Name: name, Value: fmt.Sprintf(format, args...)}
}
