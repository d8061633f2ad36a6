package cosem

import (
	"cmp"
	"context"
	"slices"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// Found is something that a meter has to be read, with a usual timetable:
// registers, or a profile.
type Found struct {
	Name     string // of a group
	Lane     meter.Lane
	Every    time.Duration
	Channels []meter.Channel
	Profile  meter.Channel
}

// Limits of what is read of a meter of which nobody says what to read.
const (
	maxFound    = 64 // channels of registers
	maxAlarms   = 8
	maxProfiles = 8
)

// Discover gives what is to be read of a meter of which nobody says what: what
// its list of objects has, within limits, the most usual first:
//
//	alarm     alarm registers and descriptors 0-b:97.98.0…9 and 20…29    15 min
//	          event logs a-b:99.98.e                                     15 min
//	billing   billing profiles a-b:98.1.e and 98.2.e, and load           6 h
//	          profiles whose period is a day or longer, or none
//	          without any: totals of energy, around midnight             1 d
//	interval  load profiles a-b:99.1.e and 99.2.e, 0-b:24.3.e            their period, 15 min at least
//	instant   registers: energies, momentary values, demands, maxima     15 min
//
// The list is read once, and what came of it is kept with the caches. Errors are
// as of Visit.
func (m *Meter) Discover(ctx context.Context) (found []Found, err error) {
	_, err = m.converse(ctx, func(ctx context.Context, v *visit) error {
		if err := v.identify(ctx); err != nil {
			return err
		}
		if !v.cache.explored {
			if err := v.explore(ctx); err != nil {
				return err
			}
		}
		found = slices.Clone(v.cache.found)
		v.remember()
		return nil
	})
	return found, err
}

// explore chooses from the list of objects.
func (v *visit) explore(ctx context.Context) error {
	objects, err := v.objects(ctx)
	if err != nil {
		return err
	}
	profiles := chooseProfiles(objects)
	periods := map[obis.Code]time.Duration{}
	var questions []question
	for _, code := range profiles {
		if profileLane(code) == meter.Interval {
			a := dlms.Attribute{Class: dlms.ClassProfileGeneric, Code: code, ID: 4}
			questions = append(questions, question{attribute: a, take: func(data axdr.Value, err error) {
				if seconds, ok := data.Uint64(); err == nil && ok {
					periods[code] = time.Duration(min(seconds, 1<<31)) * time.Second
				}
			}})
		}
	}
	if err := v.readAll(ctx, questions); err != nil {
		return err
	}
	v.cache.found, v.cache.explored = arrange(profiles, periods, objects), true
	return nil
}

const (
	foundEvery   = 15 * time.Minute
	billingEvery = 6 * time.Hour
	foundDay     = 24 * time.Hour
)

// arrange puts what was chosen into groups.
func arrange(profiles []obis.Code, periods map[obis.Code]time.Duration, objects []Object) (found []Found) {
	if alarms := chooseAlarms(objects); len(alarms) > 0 {
		found = append(found, Found{Lane: meter.Alarm, Every: foundEvery, Channels: alarms})
	}
	billed := false
	for _, code := range profiles {
		f := Found{Lane: profileLane(code), Every: foundEvery, Profile: meter.ChannelOf(code, meter.ClassProfile, 2)}
		if period, known := periods[code]; f.Lane == meter.Interval {
			switch {
			case known && (period == 0 || period >= foundDay):
				f.Lane = meter.Billing
			case period > foundEvery:
				f.Every = period
			}
		}
		if f.Lane == meter.Billing {
			f.Every, billed = billingEvery, true
		}
		found = append(found, f)
	}
	registers := chooseRegisters(objects)
	if len(registers) > 0 {
		found = append(found, Found{Lane: meter.Instant, Every: foundEvery, Channels: registers})
	}
	var totals []meter.Channel
	for _, c := range registers {
		if code, _, _, _ := c.Attribute(); code[3] == 8 && code[4] == 0 {
			totals = append(totals, c)
		}
	}
	if !billed && len(totals) > 0 {
		found = append(found, Found{Lane: meter.Billing, Every: foundDay, Channels: totals})
	}
	sortby.Stable(found, func(a, b Found) int { return cmp.Compare(a.Lane, b.Lane) })
	for i := range found {
		found[i].Name = foundName(&found[i])
	}
	return found
}

// foundName gives a name as groups have.
func foundName(f *Found) string {
	name := []byte("auto-" + f.Lane.String())
	if code, _, _, ok := f.Profile.Attribute(); ok {
		name = append(name, '-')
		text := code.String()
		for i := range len(text) {
			if c := text[i]; c >= '0' && c <= '9' {
				name = append(name, c)
			} else if c == '*' {
				break
			} else {
				name = append(name, '-')
			}
		}
	}
	return string(name)
}

func (o *Object) mayRead(id int8) bool { return !o.HasRights || slices.Contains(o.Readable, id) }

// profileLane says where the rows of a profile go, if its period does not say
// otherwise.
func profileLane(c obis.Code) meter.Lane {
	switch {
	case c[2] == 99 && c[3] == 98:
		return meter.Alarm
	case c[2] == 98:
		return meter.Billing
	}
	return meter.Interval
}

// profileRank orders profiles by how much they matter; ok is false for those
// that are not read unasked.
func profileRank(c obis.Code) (rank int, ok bool) {
	switch {
	case c[5] != 255:
		return 0, false
	case c[2] == 99 && c[3] == 1:
		return 0, true
	case c[2] == 98 && c[3] == 1:
		return 1, true
	case c[2] == 99 && c[3] == 98 && c[0] == 0:
		return 2, true
	case c[2] == 99 && c[3] == 2:
		return 3, true
	case c[2] == 98 && c[3] == 2:
		return 4, true
	case c[0] == 0 && c[2] == 24 && c[3] == 3: // of a meter behind it, by M-Bus
		return 5, true
	}
	return 0, false
}

func chooseProfiles(objects []Object) (codes []obis.Code) {
	for i := range objects {
		o := &objects[i]
		if _, ok := profileRank(o.Code); ok && o.Class == meter.ClassProfile && o.mayRead(2) && o.mayRead(3) {
			codes = append(codes, o.Code)
		}
	}
	sortby.Stable(codes, func(a, b obis.Code) int {
		x, _ := profileRank(a)
		y, _ := profileRank(b)
		return cmp.Or(cmp.Compare(x, y), compareCodes(a, b))
	})
	codes = slices.Compact(codes)
	return codes[:min(len(codes), maxProfiles)]
}

// chooseAlarms gives alarm registers and descriptors; not the filters, 10 to 19.
func chooseAlarms(objects []Object) (channels []meter.Channel) {
	var codes []obis.Code
	for i := range objects {
		o, c := &objects[i], objects[i].Code
		if o.Class == meter.ClassData && c[0] == 0 && c[2] == 97 && c[3] == 98 && (c[4] < 10 || c[4] >= 20 && c[4] < 30) && o.mayRead(2) {
			codes = append(codes, c)
		}
	}
	sortby.Stable(codes, compareCodes)
	codes = slices.Compact(codes)
	for _, c := range codes[:min(len(codes), maxAlarms)] {
		channels = append(channels, meter.ChannelOf(c, meter.ClassData, 2))
	}
	return channels
}

// registerRank orders registers by how much they matter. Values of former
// billing periods are not read: the billing profile has them.
func registerRank(o *Object) (rank int, ok bool) {
	c := o.Code
	if c[0] == 0 || c[5] != 255 || c[2] == 0 || c[2] >= 96 && c[2] <= 99 {
		return 0, false
	}
	switch o.Class {
	case meter.ClassRegister:
		switch {
		case c[3] == 8 && c[4] == 0:
			return 0, true
		case c[3] == 7 && c[4] == 0:
			return 1, true
		case c[3] == 8:
			return 2, true
		}
		return 5, true
	case meter.ClassDemandRegister:
		return 3, true
	case meter.ClassExtended:
		return 4, true
	}
	return 0, false
}

func chooseRegisters(objects []Object) (channels []meter.Channel) {
	var chosen []*Object
	for i := range objects {
		if _, ok := registerRank(&objects[i]); ok {
			chosen = append(chosen, &objects[i])
		}
	}
	sortby.Stable(chosen, func(a, b *Object) int {
		x, _ := registerRank(a)
		y, _ := registerRank(b)
		return cmp.Or(cmp.Compare(x, y), compareCodes(a.Code, b.Code), cmp.Compare(a.Class, b.Class))
	})
	for i, o := range chosen {
		if i > 0 && chosen[i-1].Code == o.Code {
			continue
		}
		ids := []int8{2}
		switch o.Class {
		case meter.ClassDemandRegister:
			ids = []int8{3} // of the period that is over
		case meter.ClassExtended:
			ids = []int8{2, 5}
		}
		for _, id := range ids {
			if o.mayRead(id) && len(channels) < maxFound {
				channels = append(channels, meter.ChannelOf(o.Code, o.Class, id))
			}
		}
	}
	return channels
}
