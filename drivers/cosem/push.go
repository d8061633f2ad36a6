package cosem

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
	"gridgate/internal/meter"
)

// maxPushed is how many values of a notification are taken: far above what
// meters send, and a bound to what malformed ones cost.
const maxPushed = 4096

// Pushed is what a meter sent unasked.
type Pushed struct {
	Kind dlms.NotificationKind
	// Rows are on meter.Alarm where they are an event, or an alarm register,
	// else on meter.Instant.
	Rows []meter.Row
	// Invoke is the number that the sender gave it; 0 is of those that give none.
	Invoke uint32
	// Dated says that the sender told a time, by its own clock.
	Dated bool
	// Confirm is the APDU that the sender waits for, in the clear; nil for none.
	Confirm []byte

	// What a Receiver adds; see there. Known says that the sender is one of its
	// meters, Title is the system title that protected it, if one did, and
	// Protected what was done to it.
	Known     bool
	Title     security.Title
	Protected security.Policy
	Identity  meter.Identity

	serials []string // that it has, the first counts
}

// ParsePushed decodes a notification, put together and deciphered, into rows.
// base is what is the same in all of them: the meter, and a stamp with the
// gateway's time for what carries none of its own. zone is that of times
// without a deviation. objects, if not nil, are those of the push setup of a
// meter that sends values only: where there are as many values, they are these.
//
// A value that the notification names is on the channel of its attribute: by
// the push object list in front of the values, by a code right before the
// value, or because it is an event's. Scaler and unit are used where they come
// along, or where the list is one of those whose scalers are in print: see
// custom. Any other value is on push.N.M…, N being its place in the notification
// from 1, M in that, and so on; those of short names are on name.fa00.
func ParsePushed(apdu []byte, base meter.Row, zone *time.Location, objects []dlms.Column) (Pushed, error) {
	n, err := dlms.ParseNotification(apdu)
	if err != nil {
		return Pushed{}, err
	}
	p := pushed{base: base, objects: objects}
	if n.HasTime {
		p.clock(n.Time, zone)
	}
	switch n.Kind {
	case dlms.DataNotificationKind:
		p.body(n.Value)
	case dlms.EventNotificationKind:
		p.base.Lane = meter.Alarm
		p.attribute(n.Attribute, n.Value, dlms.ScalerUnit{}, nil)
	case dlms.InformationReportKind:
		p.report(n, zone)
	}
	if len(p.rows) > maxPushed {
		return Pushed{}, fmt.Errorf("%w: over %d values", dlms.ErrMalformed, maxPushed)
	}
	if d, err := dlms.ParseDateTime(p.captured); err == nil && !n.HasTime {
		p.clock(d, zone)
	}
	var serials []string
	for _, serial := range p.serials {
		if serial != "" {
			serials = append(serials, serial)
		}
	}
	if len(serials) > 0 && p.base.Serial == "" {
		p.base.Serial = serials[0]
	}
	for i := range p.rows {
		r := &p.rows[i]
		r.Stamp, r.Serial, r.Quality = p.base.Stamp, p.base.Serial, r.Quality|p.base.Quality
	}
	out := Pushed{Kind: n.Kind, Rows: p.rows, Invoke: n.Number(), Dated: p.dated, serials: serials}
	if n.Confirmed() {
		out.Confirm = n.AppendConfirmation(nil)
	}
	return out, nil
}

// pushed makes rows of a notification.
type pushed struct {
	base     meter.Row
	rows     []meter.Row
	objects  []dlms.Column
	custom   custom
	serials  [2]string // of the objects of serialNumbers, "" for none
	captured string    // the meter's clock, where it is among the values
	dated    bool
}

// report takes the short names of an information-report: by them old meters
// tell events.
func (p *pushed) report(n dlms.Notification, zone *time.Location) {
	p.base.Lane = meter.Alarm
	if at, ok := n.TextTime(zone); ok {
		p.at(at)
	}
	for i, name := range n.Names {
		p.raw(meter.Channel(fmt.Sprintf("name.%04x", name)), n.Values[i])
	}
}

// clock dates the rows by the meter's clock.
func (p *pushed) clock(d dlms.DateTime, zone *time.Location) {
	at, err := d.Time(zone)
	if err != nil {
		return
	}
	p.at(at)
	p.base.Quality |= clockQuality(d)
}

func (p *pushed) at(at time.Time) {
	s := &p.base.Stamp
	s.Time, s.Source, s.Bound, p.dated = at.UnixMilli(), meter.FromMeter, meter.UnknownBound, true
}

// add takes a row; those over the limit are not kept.
func (p *pushed) add(r meter.Row) {
	if len(p.rows) <= maxPushed {
		p.rows = append(p.rows, r)
	}
}

// body takes the data of a data-notification.
func (p *pushed) body(v axdr.Value) {
	if v.Tag == axdr.TagStructure && len(v.Items) > 0 {
		columns, ok := pushList(v.Items[0])
		switch {
		case ok && len(columns) == len(v.Items): // the list is in the list
			p.listed(columns[1:], v.Items[1:], 1)
			return
		case ok && len(columns) == len(v.Items)-1:
			p.listed(columns, v.Items[1:], 1)
			return
		}
	}
	switch columns := unnamedList(v); {
	case !isNested(v):
	case len(p.objects) > 0 && len(v.Items) == len(p.objects):
		p.listed(p.objects, v.Items, 0)
		return
	case columns != nil:
		p.listed(columns, v.Items, 0)
		return
	}
	p.walk(v, nil)
}

// ParseObjects reads the objects of a push setup as people write them: channels
// with commas between. "" is none.
func ParseObjects(text string) (objects []dlms.Column, err error) {
	if text == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(text, ",") {
		c, err := meter.ParseChannel(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		code, class, id, ok := c.Attribute()
		if !ok {
			return nil, fmt.Errorf("%s: want an OBIS code", name)
		}
		objects = append(objects, dlms.Column{Attribute: dlms.Attribute{Class: class, Code: code, ID: id}})
	}
	return objects, nil
}

// pushList takes a push object list (IEC 62056-6-2, 4.4.8): an array of
//
//	class 2  code 6  attribute 1  index 2  and what newer versions add
func pushList(v axdr.Value) ([]dlms.Column, bool) {
	entries, ok := v.Elements()
	if !ok || len(entries) == 0 {
		return nil, false
	}
	short := axdr.Array()
	for _, e := range entries {
		if e.Tag != axdr.TagStructure || len(e.Items) < 4 {
			return nil, false
		}
		short.Items = append(short.Items, axdr.Structure(e.Items[:4]...))
	}
	columns, err := dlms.ParseColumns(short)
	return columns, err == nil
}

// listed takes values that columns name, the first of them at place before+1.
func (p *pushed) listed(columns []dlms.Column, values []axdr.Value, before int) {
	scales := map[object]dlms.ScalerUnit{}
	isScale := make([]bool, len(columns))
	for i, c := range columns {
		a := c.Attribute
		id, ok := scalerOf(dlms.Attribute{Class: a.Class, Code: a.Code, ID: 2})
		if !ok || id != a.ID || c.Index != 0 {
			continue
		}
		if scale, err := dlms.ParseScalerUnit(values[i]); err == nil {
			scales[object{a.Class, a.Code}], isScale[i] = scale, true
		}
	}
	for i, c := range columns {
		a, path := c.Attribute, []int{before + i + 1}
		switch {
		case isScale[i], a.Class == dlms.ClassPushSetup && a.ID == 2:
		case c.Index != 0: // part of an attribute, which no channel names
			p.walk(values[i], path)
		default:
			var scale dlms.ScalerUnit
			if _, ok := scalerOf(a); ok {
				scale = scales[object{a.Class, a.Code}]
			}
			p.attribute(a, values[i], scale, path)
		}
	}
}

// attribute takes the value of an attribute; one that is not a single value is
// taken apart.
func (p *pushed) attribute(a dlms.Attribute, v axdr.Value, scale dlms.ScalerUnit, path []int) {
	if scale == (dlms.ScalerUnit{}) {
		scale = p.custom.scale(a, v)
	}
	value, quality, err := toValue(v, a, scale.Scaler)
	if err != nil {
		p.walk(v, path)
		return
	}
	if a.Class == meter.ClassClock && a.ID == 2 {
		p.captured = v.Str
	}
	if at := slices.Index(serialNumbers(), a); at >= 0 && p.serials[at] == "" {
		p.serials[at] = serialText(v)
	}
	p.custom.heard(v)
	r := p.base
	r.Channel, r.Value, r.Unit, r.Quality = meter.ChannelOf(a.Code, a.Class, a.ID), value, meter.Unit(scale.Unit), quality
	if isAlarm(a.Code) {
		r.Lane = meter.Alarm
	}
	p.add(r)
}

// isAlarm says whether a code is one of alarm registers and what describes them
// (IEC 62056-6-1, 0-b:97.98.e), or holds the number of an event (0-b:96.11.e).
func isAlarm(c obis.Code) bool {
	return c[0] == 0 && (c[2] == 97 && c[3] == 98 || c[2] == 96 && c[3] == 11)
}

// walk takes data that nobody describes. Some makes put the code before each
// value, and scaler and unit behind it.
func (p *pushed) walk(v axdr.Value, path []int) {
	if !isNested(v) {
		name := []byte("push")
		for _, at := range path {
			name = strconv.AppendInt(append(name, '.'), int64(at), 10)
		}
		p.raw(meter.Channel(name), v)
		return
	}
	definition := isDefinition(v)
	for i := 0; i < len(v.Items); i++ {
		here := append(slices.Clip(path), i+1)
		a, ok := named(v.Items[i])
		if !ok || definition || i+1 == len(v.Items) || isNested(v.Items[i+1]) {
			p.walk(v.Items[i], here)
			continue
		}
		var scale dlms.ScalerUnit
		i++
		value := v.Items[i]
		if i+1 < len(v.Items) {
			if s, err := dlms.ParseScalerUnit(v.Items[i+1]); err == nil {
				scale = s
				i++
			}
		}
		p.attribute(a, value, scale, here)
	}
}

func isNested(v axdr.Value) bool {
	return v.Tag == axdr.TagArray || v.Tag == axdr.TagStructure || v.Tag == axdr.TagCompactArray
}

// isDefinition says whether v names an attribute and gives no value of it: the
// number behind the code is the attribute's.
func isDefinition(v axdr.Value) bool {
	return len(v.Items) >= 3 && v.Items[0].Tag == axdr.TagLongUnsigned && v.Items[2].Tag == axdr.TagInteger
}

// named gives the attribute that a code among values means: the customary one.
func named(v axdr.Value) (dlms.Attribute, bool) {
	var code obis.Code
	if v.Tag != axdr.TagOctetString || len(v.Str) != len(code) || v.Str[len(code)-1] != 255 {
		return dlms.Attribute{}, false
	}
	copy(code[:], v.Str)
	c, err := meter.ParseChannel(code.String())
	if err != nil {
		return dlms.Attribute{}, false
	}
	_, class, id, ok := c.Attribute()
	return dlms.Attribute{Class: class, Code: code, ID: id}, ok
}

// raw takes a value on a channel that says only where it was.
func (p *pushed) raw(c meter.Channel, v axdr.Value) {
	if isNested(v) {
		for i, item := range v.Items {
			p.raw(c+"."+meter.Channel(strconv.Itoa(i+1)), item)
		}
		return
	}
	p.custom.heard(v)
	value, quality, err := toValue(v, dlms.Attribute{}, 0)
	if n, ok := v.Delta(); ok {
		value, quality, err = meter.IntValue(n, 0), 0, nil
	}
	if err != nil {
		value, quality = meter.Value{}, meter.Overflow
	}
	r := p.base
	r.Channel, r.Value, r.Unit, r.Quality = c, value, meter.NoUnit, quality
	p.add(r)
}
