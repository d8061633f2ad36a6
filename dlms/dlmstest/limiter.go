package dlmstest

import (
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// Limiter gives an object of class 71 (IEC 62056-6-2, 4.5.9) that watches
// monitored, with a threshold, and runs the script actions of 0-0:10.0.106. By
// its own clock it uses the emergency threshold while an emergency profile of
// its groups is in force; a nil now has it never do so.
func Limiter(code obis.Code, monitored Column, threshold axdr.Value, now func() time.Time) Object {
	script := func(n uint16) axdr.Value {
		return axdr.Structure(axdr.OctetString("\x00\x00\x0A\x00\x6A\xFF"), axdr.LongUnsigned(n))
	}
	o := Cells(71, code, map[int8]axdr.Value{
		2: axdr.Structure(axdr.LongUnsigned(monitored.Class), axdr.OctetString(string(monitored.Code[:])), axdr.Integer(monitored.ID)),
		3: threshold, 4: threshold, 5: threshold,
		6:  axdr.DoubleLongUnsigned(60),
		7:  axdr.DoubleLongUnsigned(60),
		8:  axdr.Structure(axdr.LongUnsigned(0), axdr.OctetString("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x80\x00\xFF"), axdr.DoubleLongUnsigned(0)),
		9:  axdr.Array(),
		10: axdr.Boolean(false),
		11: axdr.Structure(script(1), script(2)),
	}, 4, 5, 6, 7, 8, 9, 11)
	stored := o.Read
	inEmergency := func() bool {
		profile, _ := stored(8, nil)
		groups, _ := stored(9, nil)
		if now == nil || len(profile.Items) != 3 {
			return false
		}
		start, ok := parseTime(profile.Items[1].Str, now().Location())
		if !ok {
			return false
		}
		end := start.Add(time.Duration(profile.Items[2].Num) * time.Second)
		for _, g := range groups.Items {
			if g.Num == profile.Items[0].Num {
				return !now().Before(start) && now().Before(end)
			}
		}
		return false
	}
	o.Read = func(id int8, rows *Selection) (axdr.Value, bool) {
		switch {
		case rows != nil:
		case id == 3 && inEmergency():
			return stored(5, nil)
		case id == 3:
			return stored(4, nil)
		case id == 10:
			return axdr.Boolean(inEmergency()), true
		}
		return stored(id, rows)
	}
	return o
}
