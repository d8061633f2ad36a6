package cosem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// The states of an image transfer (IEC 62056-6-2, 4.4.6).
const (
	imageNone        = 0
	imageTransfer    = 1
	imageVerifying   = 2
	imageVerified    = 3
	imageWrong       = 4
	imageActivating  = 5
	imageActivated   = 6
	imageNotActivate = 7
)

// mostBlock is the longest block of an image that is sent, in octets.
const mostBlock = 32 << 10

func imageObject() obis.Code      { return obis.Code{0, 0, 44, 0, 0, 255} }
func imageSchedule() obis.Code    { return obis.Code{0, 0, 15, 0, 2, 255} }
func activationScript() obis.Code { return obis.Code{0, 0, 10, 0, 107, 255} }

// imageState is how far a transfer is.
type imageState struct {
	block, first uint32
	enabled      bool
	status       uint8
}

func (v *visit) imageState(ctx context.Context, code obis.Code) (s imageState, err error) {
	values, err := v.some(ctx, dlms.ClassImageTransfer, code, 2, 4, 5, 6)
	if err != nil {
		return s, err
	}
	block, ok1 := values[0].Uint64()
	first, ok2 := values[1].Uint64()
	if !ok1 || !ok2 || values[2].Tag != axdr.TagBoolean || values[3].Tag != axdr.TagEnum {
		return s, fmt.Errorf("%w: image transfer of %v, %v, %v and %v", dlms.ErrMalformed, values[0].Tag, values[1].Tag, values[2].Tag, values[3].Tag)
	}
	return imageState{uint32(block), uint32(first), values[2].Num != 0, uint8(values[3].Num)}, nil
}

func (s imageState) facts() []meter.Fact {
	status := map[uint8]string{
		imageNone: "not initiated", imageTransfer: "initiated", imageVerifying: "verifying", imageVerified: "verified", imageWrong: "verification failed",
		imageActivating: "activating", imageActivated: "activated", imageNotActivate: "activation failed",
	}[s.status]
	if status == "" {
		status = fmt.Sprint(s.status)
	}
	return []meter.Fact{{Name: "image", Value: status}, fact("next block", "%d", s.first), fact("block size", "%d", s.block)}
}

func (v *visit) lookImage(ctx context.Context, code obis.Code) ([]meter.Fact, error) {
	s, err := v.imageState(ctx, or(code, imageObject()))
	if err != nil {
		return nil, err
	}
	return s.facts(), nil
}

// image is one visit's part of an image transfer. All of it but the activation
// may be done twice: a block that has come is taken again.
func (v *visit) image(ctx context.Context, act meter.Image, o *meter.Outcome) error {
	code := or(act.Object, imageObject())
	began := v.cfg.Now()
	o.All, o.Begun = act.Size, o.Begun || act.Begun
	s, err := v.imageState(ctx, code)
	if err != nil {
		return err
	}
	o.Before = s.facts()
	if !s.enabled {
		enable := dlms.Attribute{Class: dlms.ClassImageTransfer, Code: code, ID: 5}
		if err := v.harmless(ctx, o, func() error { return v.client.Set(ctx, enable, axdr.Boolean(true)) }); err != nil {
			return cannot("image transfer is not enabled: %w", err)
		}
	}
	if !o.Begun || s.status == imageNone {
		if s, err = v.initiate(ctx, act, s, code, o); err != nil {
			return err
		}
	}
	for round := 0; s.status == imageTransfer; round++ {
		whole, err := v.blocks(ctx, act, s, code, o, began)
		if err != nil {
			return err
		}
		if !whole {
			o.Result = meter.Pending
			return nil
		}
		if s, err = v.verify(ctx, s, code, o, round); err != nil {
			return err
		}
	}
	return v.imageEnds(ctx, act, s, code, o)
}

// initiate begins a transfer.
func (v *visit) initiate(ctx context.Context, act meter.Image, s imageState, code obis.Code, o *meter.Outcome) (imageState, error) {
	if s.status == imageVerifying || s.status == imageActivating {
		return s, mustNot("the meter is at another image: %s", shown(s.facts()))
	}
	argument := axdr.Structure(axdr.OctetString(act.Identifier), axdr.DoubleLongUnsigned(act.Size))
	if err := v.imageMethod(ctx, code, 1, argument, o); err != nil {
		return s, fmt.Errorf("initiate: %w", err)
	}
	o.Begun, o.Reached = true, 0
	s, err := v.imageState(ctx, code)
	if err == nil && s.status != imageTransfer {
		err = fmt.Errorf("%w: %s", errContradicts, shown(s.facts()))
	}
	return s, err
}

func (v *visit) imageMethod(ctx context.Context, code obis.Code, id int8, argument axdr.Value, o *meter.Outcome) error {
	return v.harmless(ctx, o, func() error {
		_, err := v.client.Action(ctx, dlms.Attribute{Class: dlms.ClassImageTransfer, Code: code, ID: id}, &argument)
		return err
	})
}

// blocks sends what has not come, and says whether that is all.
func (v *visit) blocks(ctx context.Context, act meter.Image, s imageState, code obis.Code, o *meter.Outcome, began meter.Stamp) (whole bool, err error) {
	if s.block == 0 || s.block > mostBlock {
		return false, cannot("image blocks of %d octets", s.block)
	}
	octets := make([]byte, min(s.block, act.Size))
	for n := uint64(s.first); n*uint64(s.block) < uint64(act.Size); n++ {
		at := n * uint64(s.block)
		o.Reached = uint32(at)
		if gone := time.Duration(v.cfg.Now().Mono-began.Mono) * time.Millisecond; act.Budget > 0 && gone >= act.Budget && n > uint64(s.first) {
			return false, nil
		}
		some := octets[:min(uint64(s.block), uint64(act.Size)-at)]
		if _, err := act.Octets.ReadAt(some, int64(at)); err != nil && !errors.Is(err, io.EOF) {
			return false, mustNot("the image ends: %w", err)
		}
		argument := axdr.Structure(axdr.DoubleLongUnsigned(uint32(n)), axdr.OctetString(string(some)))
		if err := v.imageMethod(ctx, code, 2, argument, o); err != nil {
			return false, fmt.Errorf("block %d: %w", n, err)
		}
	}
	o.Reached = act.Size
	return true, nil
}

// mostRounds is how often blocks that were lost in the meter are sent again
// within a visit.
const mostRounds = 5

// verify looks what has not come after all, and else has the meter check the
// image. A meter that takes its time says so: the visit ends, and the next sees.
func (v *visit) verify(ctx context.Context, before imageState, code obis.Code, o *meter.Outcome, round int) (imageState, error) {
	s, err := v.imageState(ctx, code)
	if err != nil || s.status != imageTransfer {
		return s, err
	}
	if blocks := (uint64(o.All) + uint64(s.block) - 1) / uint64(max(s.block, 1)); uint64(s.first) < blocks {
		if round >= mostRounds && s.first <= before.first {
			return s, fmt.Errorf("%w: block %d does not come, however often it is sent", errContradicts, s.first)
		}
		o.Reached = s.first * s.block
		return s, nil
	}
	err = v.imageMethod(ctx, code, 3, axdr.Integer(0), o)
	if err != nil && !isRefusal(err) {
		return s, fmt.Errorf("verify: %w", err)
	}
	after, lerr := v.imageState(ctx, code)
	switch {
	case lerr != nil:
		return s, lerr
	case err == nil && after.status == imageTransfer: // it says so, and does not show it
		after.status = imageVerified
	case errors.Is(err, dlms.TemporaryFailure) && after.status == imageTransfer:
		after.status = imageVerifying
	case err != nil && after.status == imageTransfer:
		return after, fmt.Errorf("verify: %w", err)
	}
	return after, nil
}

// imageEnds is what there is to do when all blocks have come.
func (v *visit) imageEnds(ctx context.Context, act meter.Image, s imageState, code obis.Code, o *meter.Outcome) error {
	o.After, o.Reached = s.facts(), act.Size
	switch s.status {
	case imageVerifying, imageActivating:
		o.Result = meter.Pending
		return nil
	case imageWrong, imageNotActivate:
		o.Result = meter.Failed
		return fmt.Errorf("%w: %s", errContradicts, shown(o.After))
	case imageActivated:
		o.Result = meter.Done
		return nil
	}
	info, err := v.imageInfo(ctx, code)
	if err != nil {
		return err
	}
	o.After = append(o.After, info...)
	switch {
	case !act.Activate:
		o.Result = meter.Done
		return nil
	case !act.At.IsZero():
		return v.schedule(ctx, act, o)
	}
	activate := axdr.Integer(0)
	err = v.send(o, func() error {
		_, err := v.client.Action(ctx, dlms.Attribute{Class: dlms.ClassImageTransfer, Code: code, ID: 4}, &activate)
		return err
	})
	if errors.Is(err, dlms.TemporaryFailure) { // it is at it
		o.Sent, o.Result = true, meter.Pending
		return nil
	}
	if err != nil {
		return err
	}
	s, err = v.imageState(ctx, code)
	if err == nil {
		o.After = s.facts()
	}
	return v.concluded(o, s.status != imageNotActivate, err)
}

// imageInfo tells what the meter says is in the image.
func (v *visit) imageInfo(ctx context.Context, code obis.Code) (facts []meter.Fact, err error) {
	data, err := v.get(ctx, dlms.Attribute{Class: dlms.ClassImageTransfer, Code: code, ID: 7})
	if isOfOne(err) {
		return nil, nil // not every meter tells
	}
	if err != nil {
		return nil, err
	}
	items, _ := data.Elements()
	for _, item := range items {
		if len(item.Items) < 3 {
			continue
		}
		name := item.Items[1].Str
		if !isPrintable(name) {
			name = fmt.Sprintf("%x", name)
		}
		facts = append(facts, fact("to activate", "%s, %d octets, signature %x", name, item.Items[0].Num, item.Items[2].Str))
	}
	return facts, nil
}

// schedule has the meter activate the image by its own clock, by the schedule
// that the standard names for that.
func (v *visit) schedule(ctx context.Context, act meter.Image, o *meter.Outcome) error {
	code := imageSchedule()
	values, err := v.some(ctx, dlms.ClassSingleAction, code, 2)
	if err != nil {
		return fmt.Errorf("schedule of the activation, %v (order it without a time): %w", code, err)
	}
	if script := activationScript(); len(values[0].Items) != 2 || values[0].Items[0].Str != string(script[:]) {
		return cannot("what its schedule %v runs is not the activation", code)
	}
	at, err := v.byItsClock(ctx, act.At)
	if err != nil {
		return err
	}
	when := axdr.Array(axdr.Structure(
		axdr.OctetString(string([]byte{at.Hour, at.Minute, at.Second, 0})),
		axdr.OctetString(string([]byte{byte(at.Year >> 8), byte(at.Year), at.Month, at.Day, 0xFF}))))
	a := dlms.Attribute{Class: dlms.ClassSingleAction, Code: code, ID: 4}
	if err := v.send(o, func() error { return v.client.Set(ctx, a, when) }); err != nil {
		return err
	}
	o.After = append(o.After, fact("activation", "%04d-%02d-%02d %02d:%02d:%02d by the meter's clock", at.Year, at.Month, at.Day, at.Hour, at.Minute, at.Second))
	back, err := v.get(ctx, a)
	return v.concluded(o, back.Equal(when), err)
}
