package cosem

import (
	"context"
	"fmt"
	"slices"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

func calendarObject() obis.Code    { return obis.Code{0, 0, 13, 0, 0, 255} }
func specialDaysObject() obis.Code { return obis.Code{0, 0, 11, 0, 0, 255} }
func tariffScripts() obis.Code     { return obis.Code{0, 0, 10, 0, 100, 255} }
func billingScripts() obis.Code    { return obis.Code{0, 0, 10, 0, 1, 255} }

// notSpecified is the date-time that never comes.
func notSpecified() dlms.DateTime {
	return dlms.DateTime{
		Year: 0xFFFF, Month: 0xFF, Day: 0xFF, Weekday: 0xFF, Hour: 0xFF, Minute: 0xFF, Second: 0xFF, Hundredths: 0xFF,
		Deviation: dlms.NoDeviation, Status: 0xFF,
	}
}

func dateTime(d dlms.DateTime) axdr.Value {
	var b [dlms.DateTimeLen]byte
	octets, _ := d.AppendBinary(b[:0])
	return axdr.OctetString(string(octets))
}

func codeOctets(c obis.Code) axdr.Value { return axdr.OctetString(string(c[:])) }

// momentText gives a date-time as people read it.
func momentText(octets string) string {
	if d, err := dlms.ParseDateTime(octets); err == nil && d.Year == 0xFFFF && d.Month == 0xFF && d.Day == 0xFF {
		return "never"
	}
	return meter.Value{Kind: meter.DateTime, Data: octets}.String()
}

// tables gives the four passive attributes of a calendar, 6 to 9 (IEC
// 62056-6-2, 4.5.5).
func tables(act meter.Calendar) [4]axdr.Value {
	seasons, weeks, days := axdr.Array(), axdr.Array(), axdr.Array()
	for _, s := range act.Seasons {
		start := notSpecified()
		start.Year, start.Month, start.Day = s.Year, s.Month, s.Day
		start.Hour, start.Minute, start.Second, start.Hundredths = 0, 0, 0, 0
		seasons.Items = append(seasons.Items, axdr.Structure(axdr.OctetString(s.Name), dateTime(start), axdr.OctetString(s.Week)))
	}
	for _, w := range act.Weeks {
		week := axdr.Structure(axdr.OctetString(w.Name))
		for _, d := range w.Days {
			week.Items = append(week.Items, axdr.Unsigned(d))
		}
		weeks.Items = append(weeks.Items, week)
	}
	for _, d := range act.Days {
		switches := axdr.Array()
		for _, s := range d.Switches {
			switches.Items = append(switches.Items, axdr.Structure(
				axdr.OctetString(string([]byte{s.Hour, s.Minute, 0, 0})), codeOctets(or(s.Table, tariffScripts())), axdr.LongUnsigned(s.Script)))
		}
		days.Items = append(days.Items, axdr.Structure(axdr.Unsigned(d.ID), switches))
	}
	return [4]axdr.Value{axdr.OctetString(act.CalName), seasons, weeks, days}
}

func (v *visit) lookCalendar(ctx context.Context, code obis.Code) ([]meter.Fact, error) {
	values, err := v.some(ctx, dlms.ClassActivityCalendar, or(code, calendarObject()), 2, 6, 10)
	if err != nil {
		return nil, err
	}
	text := func(x axdr.Value) string {
		if isPrintable(x.Str) {
			return x.Str
		}
		return fmt.Sprintf("%x", x.Str)
	}
	return []meter.Fact{
		{Name: "active", Value: text(values[0])},
		{Name: "passive", Value: text(values[1])},
		{Name: "activation", Value: momentText(values[2].Str)},
	}, nil
}

// calendar writes the passive calendar, which nothing follows: before that it
// sees to it that a half of it is not activated, and behind that it reads it
// back. Then it is activated, and that is sent once.
func (v *visit) calendar(ctx context.Context, act meter.Calendar, o *meter.Outcome) (err error) {
	code := or(act.Object, calendarObject())
	if o.Before, err = v.lookCalendar(ctx, code); err != nil {
		return err
	}
	at := func(id int8) dlms.Attribute {
		return dlms.Attribute{Class: dlms.ClassActivityCalendar, Code: code, ID: id}
	}
	when := notSpecified()
	if !act.At.IsZero() {
		if when, err = v.byItsClock(ctx, act.At); err != nil {
			return err
		}
	}
	if err := v.harmless(ctx, o, func() error { return v.client.Set(ctx, at(10), dateTime(notSpecified())) }); err != nil {
		return err
	}
	wanted := tables(act)
	for i, id := range []int8{9, 8, 7, 6} { // what others name goes first
		if err := v.harmless(ctx, o, func() error { return v.client.Set(ctx, at(id), wanted[3-i]) }); err != nil {
			return fmt.Errorf("%s: %w", dlms.AttributeName(at(id)), err)
		}
	}
	has, err := v.some(ctx, dlms.ClassActivityCalendar, code, 6, 7, 8, 9)
	if err != nil {
		return err
	}
	for i := range has {
		if !sameTable(has[i], wanted[i]) {
			return fmt.Errorf("%w: %s reads back otherwise than it was written; it was not activated", errContradicts, dlms.AttributeName(at(int8(6+i))))
		}
	}
	switch {
	case act.PassOver:
	case act.At.IsZero():
		err = v.send(o, func() error { return v.client.ActivateCalendar(ctx, code) })
	default:
		err = v.send(o, func() error { return v.client.Set(ctx, at(10), dateTime(when)) })
	}
	if err != nil {
		return err
	}
	ok, err := v.settle(ctx, func() (bool, error) {
		o.After, err = v.lookCalendar(ctx, code)
		return err == nil && (act.PassOver || !act.At.IsZero() || o.After[0].Value == act.CalName), err
	})
	return v.concluded(o, ok, err)
}

// sameTable compares what a meter has with what it was given. Meters keep
// tables in an order of their own, and fill in what was left open.
func sameTable(has, given axdr.Value) bool {
	if has.Tag != axdr.TagArray && has.Tag != axdr.TagCompactArray || given.Tag != axdr.TagArray {
		return has.Str == given.Str
	}
	items, ok := has.Elements()
	if !ok || len(items) != len(given.Items) {
		return false
	}
	for _, g := range given.Items {
		if !slices.ContainsFunc(items, func(h axdr.Value) bool {
			return len(h.Items) == len(g.Items) && len(h.Items) > 0 && h.Items[0].Num == g.Items[0].Num && h.Items[0].Str == g.Items[0].Str
		}) {
			return false
		}
	}
	return true
}

func (v *visit) lookSpecialDays(ctx context.Context, code obis.Code) ([]meter.Fact, error) {
	values, err := v.some(ctx, dlms.ClassSpecialDays, or(code, specialDaysObject()), 2)
	if err != nil {
		return nil, err
	}
	days, _ := values[0].Elements()
	return []meter.Fact{fact("special days", "%d", len(days))}, nil
}

func specialDay(d meter.SpecialDay) axdr.Value {
	date := []byte{byte(d.Year >> 8), byte(d.Year), d.Month, d.Day, 0xFF}
	return axdr.Structure(axdr.LongUnsigned(d.Index), axdr.OctetString(string(date)), axdr.Unsigned(d.Profile))
}

// specialDays writes the table, or inserts days, which replaces those of the
// same index: either may be done twice.
func (v *visit) specialDays(ctx context.Context, act meter.SpecialDays, o *meter.Outcome) (err error) {
	code := or(act.Object, specialDaysObject())
	if o.Before, err = v.lookSpecialDays(ctx, code); err != nil {
		return err
	}
	table := axdr.Array()
	for _, d := range act.Days {
		table.Items = append(table.Items, specialDay(d))
	}
	if act.Replace {
		a := dlms.Attribute{Class: dlms.ClassSpecialDays, Code: code, ID: 2}
		err = v.send(o, func() error { return v.client.Set(ctx, a, table) })
	} else {
		insert := dlms.Attribute{Class: dlms.ClassSpecialDays, Code: code, ID: 1}
		for i := range table.Items {
			if err = v.send(o, func() error {
				_, err := v.client.Action(ctx, insert, &table.Items[i])
				return err
			}); err != nil {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	values, err := v.some(ctx, dlms.ClassSpecialDays, code, 2)
	if err != nil {
		return v.concluded(o, false, err)
	}
	has, _ := values[0].Elements()
	o.After = []meter.Fact{fact("special days", "%d", len(has))}
	ok := !act.Replace || len(has) == len(act.Days)
	for _, want := range table.Items {
		ok = ok && slices.ContainsFunc(has, want.Equal)
	}
	return v.concluded(o, ok, nil)
}

// lookBilling counts the meter's billing rows.
func (v *visit) lookBilling(ctx context.Context) ([]meter.Fact, error) {
	a := dlms.Attribute{Class: meter.ClassProfile, Code: obis.Code{0, 0, 98, 1, 0, 255}, ID: 7}
	data, err := v.get(ctx, a)
	if isRefusal(err) {
		return nil, nil // not every meter has it there
	}
	if err != nil {
		return nil, err
	}
	return []meter.Fact{fact("billing rows", "%d", data.Num)}, nil
}

func (v *visit) script(ctx context.Context, act meter.Script, o *meter.Outcome) (err error) {
	if o.Before, err = v.lookBilling(ctx); err != nil {
		return err
	}
	s := dlms.Script{Table: or(act.Table, billingScripts()), Selector: act.Selector}
	if err := v.send(o, func() error { return v.client.ExecuteScript(ctx, s) }); err != nil {
		return err
	}
	o.After, err = v.lookBilling(ctx)
	return v.concluded(o, true, err)
}
