package cosem

import (
	"context"
	"errors"
	"fmt"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
	"gridgate/internal/meter"
)

func securityObject() obis.Code { return obis.Code{0, 0, 43, 0, 0, 255} }

// keyTrial is what is to be found out: which keys a meter has.
type keyTrial struct {
	next    security.Keys
	outcome *meter.Outcome
}

// shows says whether an association tells the keys from others: it uses no master
// key, and that for broadcasts is not needed either.
func (k *keyTrial) shows(old security.Keys) bool {
	return !k.next.Encryption.Equal(old.Encryption) || !k.next.Authentication.Equal(old.Authentication)
}

// keys gives those of the association with others in their place.
func (m *Meter) keys(others map[meter.KeyKind]meter.Secret) (security.Keys, error) {
	keys := m.cfg.Security.Keys
	for kind, secret := range others {
		key, err := security.NewKey(secret)
		if err != nil {
			return keys, fmt.Errorf("%v: %w", kind, err)
		}
		if key.Len() != m.cfg.Security.Suite.KeyLen() {
			return keys, fmt.Errorf("%v: %w: %d octets, and suite %d has %d", kind, security.ErrKey, key.Len(), m.cfg.Security.Suite, m.cfg.Security.Suite.KeyLen())
		}
		switch kind {
		case meter.UnicastKey:
			keys.Encryption = key
		case meter.BroadcastKey:
			keys.Broadcast = key
		case meter.AuthenticationKey:
			keys.Authentication = key
		case meter.MasterKey:
		}
	}
	return keys, nil
}

// changeKeys gives the meter its new keys, all in one request, so that it has
// all of them or none.
func (v *visit) changeKeys(ctx context.Context, act meter.ChangeKeys, o *meter.Outcome) error {
	master, err := security.NewKey(act.Master)
	if err != nil {
		return mustNot("kek: %w", err)
	}
	next, err := v.keys(act.Keys)
	if err != nil {
		return mustNot("%w", err)
	}
	switch {
	case len(act.Keys) == 0:
		return mustNot("no keys")
	case len(v.done.acts.outcomes) > 1:
		return mustNot("%s beside other acts", act.Name())
	case !v.usesKeys():
		return cannot("its association uses no keys, so that nobody could see whether it has the new ones")
	}
	var wrapped []dlms.WrappedKey
	for _, kind := range []meter.KeyKind{meter.UnicastKey, meter.BroadcastKey, meter.AuthenticationKey, meter.MasterKey} {
		secret, ok := act.Keys[kind]
		if !ok {
			continue
		}
		key, err := security.NewKey(secret)
		if err != nil {
			return mustNot("%v: %w", kind, err)
		}
		octets, err := security.Wrap(nil, master, key)
		if err != nil {
			return mustNot("%v: %w", kind, err)
		}
		wrapped = append(wrapped, dlms.WrappedKey{ID: uint8(kind), Key: octets})
	}
	err = v.send(o, func() error { return v.client.TransferKeys(ctx, or(act.Object, securityObject()), wrapped) })
	if v.done.acts.sent || err == nil {
		v.done.acts.keys = &keyTrial{next: next, outcome: o}
	}
	if err == nil {
		o.Result = meter.Done
	}
	return err
}

// acted ends what a visit did: it looks once more where nobody knows what became
// of an act, and finds out which keys a meter has that was given others.
func (m *Meter) acted(ctx context.Context, done *progress, got meter.Got, err error) (meter.Got, error) {
	a := &done.acts
	switch {
	case ctx.Err() != nil:
	case a.tunnel != nil && err == nil:
		err = m.dig(ctx, a.tunnel, &a.outcomes[0])
	case a.keys != nil:
		err = m.tryKeys(ctx, a, &got, err)
	case a.sent:
		got, err = m.lookBack(ctx, done)
	}
	for i := range a.outcomes {
		o := &a.outcomes[i]
		_, image := o.Act.(meter.Image)
		switch {
		case o.Result == meter.NotTried && o.Sent && image:
			o.Result = meter.Pending // it goes on where it is
		case o.Result == meter.NotTried && o.Err == nil:
			o.Err, o.At = err, m.cfg.Now()
		case o.Result == meter.Done && o.Err != nil:
			o.After = append(o.After, fact("read back", "%v", o.Err))
			o.Err = nil
		}
	}
	got.Done = a.outcomes
	return got, err
}

// tryKeys finds out which keys the meter has, the new ones first: by an
// association, and its serial number. Neither is shown to it twice.
func (m *Meter) tryKeys(ctx context.Context, a *acting, got *meter.Got, cause error) error {
	o, old := a.keys.outcome, m.cfg.Security.Keys
	acknowledged := o.Result == meter.Done
	if !a.keys.shows(old) {
		if acknowledged {
			o.Keys, o.After = meter.NewKeys, []meter.Fact{{Name: "keys", Value: "new, by the meter's word"}}
			return nil
		}
		o.Result, o.Err = meter.Unknown, errors.Join(cause, errors.New("an association does not show which of these keys the meter has"))
		return o.Err
	}
	var why error
	for _, try := range []struct {
		keys  security.Keys
		which meter.KeysFound
	}{{a.keys.next, meter.NewKeys}, {old, meter.OldKeys}} {
		if why = m.useKeys(ctx, try.keys); why == nil {
			if *got, why = m.converse(ctx, func(ctx context.Context, v *visit) error {
				v.done = newProgress()
				if v.done.acts.ask = a.ask; m.cfg.Serial == "" && a.ask.Serial == "" {
					return v.identify(ctx)
				}
				return v.proveSerial(ctx)
			}); why == nil {
				o.Keys = try.which
				break
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	switch o.Keys {
	case meter.NewKeys:
		o.Result, o.Err, a.sent = meter.Done, nil, false
		o.After = []meter.Fact{{Name: "keys", Value: "new"}}
		return nil
	case meter.OldKeys:
		o.Result, a.sent = meter.Failed, false
		o.After = []meter.Fact{{Name: "keys", Value: "old"}}
		if o.Err = errContradicts; !acknowledged {
			o.Err = cause
		}
		return nil
	case meter.KeysUnknown:
	}
	_ = m.useKeys(ctx, old) // what they were asked for is over
	next := a.keys.next
	m.cfg.NextKeys = &next // the next visit finds out
	o.Result, o.Err = meter.Unknown, errors.Join(cause, why)
	return o.Err
}

// findKeys finds out which keys a meter has that was being given others when the
// agent was cut off.
func (m *Meter) findKeys(ctx context.Context) error {
	next := m.cfg.NextKeys
	if next == nil || !m.usesKeys() {
		return nil
	}
	var got meter.Got
	o := meter.Outcome{Act: meter.TryKeys{}}
	a := acting{ask: meter.Ask{Serial: m.cfg.Serial}, keys: &keyTrial{next: *next, outcome: &o}}
	if !a.keys.shows(m.cfg.Security.Keys) {
		m.cfg.NextKeys = nil // it is read with either
		return nil
	}
	err := m.tryKeys(ctx, &a, &got, nil)
	if o.Keys == meter.KeysUnknown {
		return err
	}
	if m.cfg.NextKeys = nil; m.cfg.KeysFound != nil {
		m.cfg.KeysFound(o.Keys == meter.NewKeys)
	}
	return nil
}

// useKeys has the next association use those keys.
func (m *Meter) useKeys(_ context.Context, keys security.Keys) error {
	if err := m.Close(); err != nil { //nolint:contextcheck // it has that of the last visit
		return err
	}
	m.cfg.Security.Keys = keys
	m.anchored, m.doubted, m.known = false, false, false
	if m.counter = nil; m.usesKeys() && m.cfg.Counters != nil {
		m.counter = security.NewCounter(m.cfg.Counters, m.cfg.Security.Title, keys.Encryption, counterStep)
	}
	return nil
}

// visitKeys is a visit for TryKeys alone.
func (m *Meter) visitKeys(ctx context.Context, ask meter.Ask, act meter.TryKeys) (meter.Got, error) {
	got := meter.Got{Identity: meter.Identity{Want: m.cfg.Serial}}
	a := newActing(ask)
	o := &a.outcomes[0]
	o.At = m.cfg.Now()
	next, err := m.keys(act.Keys)
	switch {
	case len(ask.Acts) > 1:
		err = mustNot("%s beside other acts", act.Name())
	case err != nil:
		err = mustNot("%w", err)
	case !m.usesKeys():
		err = cannot("its association uses no keys")
	}
	if err != nil {
		got.Done = meter.RefuseActs(ask.Acts, o.At, err)
		return got, nil
	}
	a.keys = &keyTrial{next: next, outcome: o}
	err = m.tryKeys(ctx, &a, &got, nil)
	if o.Keys != meter.KeysUnknown {
		o.Result, o.Err = meter.Done, nil
		m.cfg.NextKeys = nil // who asked keeps those that it has
	}
	got.Done = a.outcomes
	return got, err
}
