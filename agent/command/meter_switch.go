package command

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"gridgate/internal/meter"
)

func newDisconnect(decode func(any) error) (Executor, error) {
	var with struct {
		Object string `yaml:"object"`
	}
	if err := decode(&with); err != nil {
		return nil, err
	}
	var p problems
	act := meter.Disconnect{Object: objectOf(&p, "object", with.Object, 70)}
	return onMeter{act: act}, p.err()
}

func newConnect(decode func(any) error) (Executor, error) {
	var with struct {
		Object string `yaml:"object"`
		Direct string `yaml:"direct"`
	}
	if err := decode(&with); err != nil {
		return nil, err
	}
	var p problems
	act := meter.Connect{Object: objectOf(&p, "object", with.Object, 70), Direct: with.Direct == "allow"}
	if with.Direct != "" && with.Direct != "allow" {
		p.wrong("direct", "%q; want allow, or leave it out", clip(with.Direct))
	}
	return onMeter{act: act, said: saidConnected}, p.err()
}

// saidConnected tells a breaker that is closed from one that is ready to be.
func saidConnected(o *meter.Outcome, usual string) string {
	for _, f := range o.After {
		if f.Name == "output" && f.Value == "off" {
			return "it is ready: the customer closes it at the meter; " + usual
		}
	}
	return usual
}

// objectOf reads an OBIS code; of nothing it gives the zero code, which is the
// standard's.
func objectOf(p *problems, key, text string, class uint16) [6]byte {
	if text == "" {
		return [6]byte{}
	}
	c, err := meter.ParseChannel(text)
	if err == nil {
		if code, found, _, ok := c.Attribute(); ok && (!strings.Contains(text, "/") || found == class) {
			return code
		}
	}
	p.wrong(key, "%q; want an OBIS code such as 0-0:96.3.10", clip(text))
	return [6]byte{}
}

// mostLimit is the longest time that a limit is for; what is to last is a
// permanent one.
const mostLimit = 31 * 24 * time.Hour

func newLimit(decode func(any) error) (Executor, error) {
	var with struct {
		Object    string `yaml:"object"`
		Threshold string `yaml:"threshold"`
		Duration  string `yaml:"duration"`
		Start     string `yaml:"start"`
		Profile   int    `yaml:"profile"`
		Permanent bool   `yaml:"permanent"`
		End       bool   `yaml:"end"`
	}
	if err := decode(&with); err != nil {
		return nil, err
	}
	var p problems
	act := meter.Limit{Object: objectOf(&p, "object", with.Object, 71)}
	if with.Threshold != "" {
		var err error
		act.Threshold, act.Unit, err = amount(with.Threshold)
		p.add(err)
	}
	forms := 0
	for _, is := range []bool{with.Duration != "", with.Permanent, with.End} {
		if is {
			forms++
		}
	}
	if forms != 1 {
		p.wrong("duration", "want one of duration (the meter lets go by itself), permanent: true, and end: true (of what is in force)")
	}
	if with.Threshold == "" && !with.End {
		p.wrong("threshold", `missing; want a number with a unit, such as "2300 W"`)
	}
	if with.Threshold != "" && with.End {
		p.wrong("threshold", "is not of end: true")
	}
	if with.Profile < 0 || with.Profile > 65535 {
		p.wrong("profile", "%d; want 0 to 65535", with.Profile)
	}
	if with.Permanent && (with.Start != "" || with.Profile != 0) {
		p.wrong("permanent", "a permanent threshold has no start and no profile: it holds at once")
	}
	if with.End && with.Start != "" {
		p.wrong("start", "is not of end: true")
	}
	if !with.Permanent {
		act.Emergency = &meter.Emergency{Profile: uint16(with.Profile)}
	}
	if with.Duration != "" {
		d, err := span("duration", with.Duration, mostLimit)
		p.add(err)
		if d%time.Second != 0 {
			p.wrong("duration", "%q; want whole seconds", clip(with.Duration))
		}
		if act.Emergency != nil {
			act.Emergency.Length = d
		}
	}
	if with.Start != "" {
		at, err := moment("start", with.Start)
		p.add(err)
		if act.Emergency != nil {
			act.Emergency.Start = at
		}
	}
	return onMeter{act: act}, p.err()
}

// amount reads a number with a unit: "2300 W", "2.3 kW", "16 A".
func amount(text string) (meter.Value, meter.Unit, error) {
	bad := func() error {
		return wrong("threshold", `%q; want a number with a unit, such as "2300 W", "2.3 kW" or "16 A"`, clip(text))
	}
	number, symbol, ok := strings.Cut(strings.TrimSpace(text), " ")
	symbol = strings.TrimSpace(symbol)
	scale := 0
	unit, known := meter.ParseUnit(symbol)
	if rest, kilo := strings.CutPrefix(symbol, "k"); kilo && !known {
		unit, known = meter.ParseUnit(rest)
		scale = 3
	}
	if !ok || !known || symbol == "" {
		return meter.Value{}, 0, bad()
	}
	whole, part, dot := strings.Cut(number, ".")
	if dot && (part == "" || strings.Trim(part, "0123456789") != "") || whole == "" || strings.Trim(whole, "0123456789") != "" || len(part) > 9 {
		return meter.Value{}, 0, bad()
	}
	n, err := strconv.ParseUint(whole+part, 10, 64)
	if err != nil {
		return meter.Value{}, 0, bad()
	}
	return meter.UintValue(n, int8(scale-len(part))), unit, nil
}

func newDemandReset(decode func(any) error) (Executor, error) {
	var with struct {
		Table  string `yaml:"table"`
		Script int    `yaml:"script"`
	}
	if err := decode(&with); err != nil {
		return nil, err
	}
	var p problems
	act := meter.Script{Table: objectOf(&p, "table", with.Table, 9), Selector: 1}
	switch {
	case with.Script < 0 || with.Script > 65535:
		p.wrong("script", "%d; want 1 to 65535", with.Script)
	case with.Script > 0:
		act.Selector = uint16(with.Script)
	}
	return onMeter{act: act, said: func(o *meter.Outcome, _ string) string {
		return strings.TrimSuffix(fmt.Sprintf("the meter ran its script %d: %s", act.Selector, factsText(o.After)), ": ")
	}}, p.err()
}
