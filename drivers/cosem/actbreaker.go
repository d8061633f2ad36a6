package cosem

import (
	"context"
	"fmt"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// The control states of a breaker (IEC 62056-6-2, 4.5.8).
const (
	breakerOpen   = 0 // opened from afar
	breakerClosed = 1
	breakerReady  = 2 // by hand, or it tripped, or it was made ready from afar
)

func breakerObject() obis.Code { return obis.Code{0, 0, 96, 3, 10, 255} }

// lastSwitching is the number of the last event of the disconnector's log.
func lastSwitching() dlms.Attribute {
	return dlms.Attribute{Class: meter.ClassData, Code: obis.Code{0, 0, 96, 11, 2, 255}, ID: 2}
}

// breaker reads how a breaker is. All of it must be had: nothing is switched
// on half of what is the case.
func (v *visit) breaker(ctx context.Context, code obis.Code) (b dlms.DisconnectControl, err error) {
	values, err := v.some(ctx, dlms.ClassDisconnectControl, or(code, breakerObject()), 2, 3, 4)
	if err != nil {
		return b, err
	}
	output, state, mode := values[0], values[1], values[2]
	if output.Tag != axdr.TagBoolean || state.Tag != axdr.TagEnum || mode.Tag != axdr.TagEnum {
		return b, fmt.Errorf("%w: disconnect control of %v, %v and %v", dlms.ErrMalformed, output.Tag, state.Tag, mode.Tag)
	}
	return dlms.DisconnectControl{Connected: output.Num != 0, State: uint8(state.Num), Mode: uint8(mode.Num)}, nil
}

func breakerFacts(b dlms.DisconnectControl) []meter.Fact {
	state := map[uint8]string{breakerOpen: "disconnected", breakerClosed: "connected", breakerReady: "ready for reconnection by hand"}[b.State]
	if state == "" {
		state = fmt.Sprint(b.State)
	}
	output := "off"
	if b.Connected {
		output = "on"
	}
	return []meter.Fact{{Name: "output", Value: output}, {Name: "state", Value: state}, fact("mode", "%d", b.Mode)}
}

func (v *visit) lookBreaker(ctx context.Context, code obis.Code) ([]meter.Fact, error) {
	b, err := v.breaker(ctx, code)
	if err != nil {
		return nil, err
	}
	return breakerFacts(b), nil
}

func (v *visit) disconnect(ctx context.Context, act meter.Disconnect, o *meter.Outcome) error {
	before, err := v.breaker(ctx, act.Object)
	if err != nil {
		return err
	}
	o.Before = breakerFacts(before)
	switch {
	case before.Mode == 0 || before.Mode > 6:
		return mustNot("control mode %d lets nobody switch from afar", before.Mode)
	case !before.Connected && before.State == breakerOpen:
		o.Result, o.At, o.After = meter.Done, v.cfg.Now(), o.Before
		return nil
	}
	if err := v.send(o, func() error { return v.client.Disconnect(ctx, or(act.Object, breakerObject())) }); err != nil {
		return err
	}
	return v.switched(ctx, act.Object, o, func(b dlms.DisconnectControl) bool { return !b.Connected && b.State == breakerOpen })
}

func (v *visit) reconnect(ctx context.Context, act meter.Connect, o *meter.Outcome) error {
	before, err := v.breaker(ctx, act.Object)
	if err != nil {
		return err
	}
	o.Before = breakerFacts(before)
	direct := before.Mode == 2 || before.Mode == 4
	switch {
	case before.Mode == 0 || before.Mode > 6:
		return mustNot("control mode %d lets nobody switch from afar", before.Mode)
	case before.Connected && before.State == breakerClosed,
		!direct && !before.Connected && before.State == breakerReady:
		o.Result, o.At, o.After = meter.Done, v.cfg.Now(), o.Before
		return nil
	case before.Connected || before.State != breakerOpen:
		return mustNot("the breaker was opened at the meter, or has tripped (%s): who is there closes it", shown(o.Before))
	case direct && !act.Direct:
		return mustNot("in control mode %d the meter energises at once: that needs `direct: allow`", before.Mode)
	}
	if err := v.mayClose(ctx); err != nil {
		return err
	}
	if err := v.send(o, func() error { return v.client.Reconnect(ctx, or(act.Object, breakerObject())) }); err != nil {
		return err
	}
	return v.switched(ctx, act.Object, o, func(b dlms.DisconnectControl) bool {
		return b.Connected && b.State == breakerClosed || !direct && b.State == breakerReady
	})
}

// mayClose asks the meter's log of its disconnector, where the model names its
// events, whether it was the meter itself that opened: some show that as
// disconnected from afar.
func (v *visit) mayClose(ctx context.Context) error {
	a := lastSwitching()
	object := meter.ChannelOf(a.Code, a.Class, a.ID)
	if _, named := v.cfg.Events.object(object); !named || len(v.cfg.Events.Codes[a.Code]) == 0 {
		return nil
	}
	last, err := v.get(ctx, a)
	if isRefusal(err) {
		return nil // it has no such log
	}
	number, ok := last.Uint64()
	if err != nil || !ok {
		return err
	}
	name, _ := v.cfg.Events.Code(object, number)
	if name == EventChannel("disconnected-locally") || name == EventChannel("limit-exceeded") {
		return mustNot("the meter's log says that the breaker has tripped (%s): who is there closes it", name)
	}
	return nil
}

// switched reads back what the meter said that it did.
func (v *visit) switched(ctx context.Context, code obis.Code, o *meter.Outcome, is func(dlms.DisconnectControl) bool) error {
	ok, err := v.settle(ctx, func() (bool, error) {
		b, err := v.breaker(ctx, code)
		if err == nil {
			o.After = breakerFacts(b)
		}
		return is(b), err
	})
	return v.concluded(o, ok, err)
}
