package dlmstest

import (
	"sync"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

func octetsOf(c obis.Code) axdr.Value { return axdr.OctetString(string(c[:])) }

// anyDate and anyTime are a date and a time of which nothing is specified.
const (
	anyDate = "\xFF\xFF\xFF\xFF\xFF"
	anyTime = "\xFF\xFF\xFF\xFF"
	never   = anyDate + anyTime + "\x80\x00\xFF"
)

// DemandRegister gives an object of class 5 (IEC 62056-6-2, 4.3.4) with the
// demand of period, as it is and as it was.
func DemandRegister(code obis.Code, scaler int8, unit uint8, period time.Duration, demand func(ended bool) axdr.Value, now func() time.Time) Object {
	began := func() time.Time { return now().Truncate(period) }
	return Attributes(5, code, map[int8]func() axdr.Value{
		2: func() axdr.Value { return demand(false) },
		3: func() axdr.Value { return demand(true) },
		4: scalerUnit(scaler, unit),
		5: Fixed(axdr.Unsigned(0)),
		6: func() axdr.Value { return axdr.OctetString(DateTime(began())) },
		7: func() axdr.Value { return axdr.OctetString(DateTime(began())) },
		8: Fixed(axdr.DoubleLongUnsigned(uint32(period / time.Second))),
		9: Fixed(axdr.LongUnsigned(1)),
	})
}

// HDLCSetup gives an object of class 23, version 1 (IEC 62056-6-2, 4.7.2), of
// a station.
func HDLCSetup(s Station) Object {
	s = s.withDefaults()
	_, lower := split(s.Server)
	if lower == noLower {
		lower = factoryLower
	}
	info, window := axdr.LongUnsigned(uint16(s.MaxInfo)), axdr.Unsigned(uint8(s.Window))
	o := Cells(23, obis.Code{0, 0, 22, 0, 0, 255}, map[int8]axdr.Value{
		2: axdr.Enum(5), // 9600 bit/s
		3: window, 4: window, 5: info, 6: info,
		7: axdr.LongUnsigned(25), // ms between octets
		8: axdr.LongUnsigned(uint16(s.Inactivity / time.Second)),
		9: axdr.LongUnsigned(uint16(lower)),
	})
	o.Version = 1
	return o
}

// LocalPort gives an object of class 19, version 1 (IEC 62056-6-2, 4.7.1), of
// an optical head.
func LocalPort(e ModeE) Object {
	rate := uint8(5)
	for i, baud := range baudRates() {
		if baud == e.Baud {
			rate = uint8(i)
		}
	}
	o := Cells(19, obis.Code{0, 0, 20, 0, 0, 255}, map[int8]axdr.Value{
		2: axdr.Enum(0), 3: axdr.Enum(0), // mode E, from 300 bit/s
		4: axdr.Enum(rate), 5: axdr.Enum(1), // 200 ms
		6: axdr.OctetString(e.Address),
		7: axdr.OctetString(""), 8: axdr.OctetString(""), 9: axdr.OctetString(""),
	})
	o.Version = 1
	return o
}

// Network gives TCP-UDP setup (class 41), IPv4 setup (42), MAC address setup
// (43) and GPRS setup (45) of a meter that listens at a port.
func Network(port uint16, address [4]byte) []Object {
	ip := axdr.DoubleLongUnsigned(uint32(address[0])<<24 | uint32(address[1])<<16 | uint32(address[2])<<8 | uint32(address[3]))
	tcp, ipv4, mac := obis.Code{0, 0, 25, 0, 0, 255}, obis.Code{0, 0, 25, 1, 0, 255}, obis.Code{0, 0, 25, 2, 0, 255}
	quality := axdr.Structure(axdr.Unsigned(0), axdr.Unsigned(0), axdr.Unsigned(0), axdr.Unsigned(0), axdr.Unsigned(0))
	return []Object{
		Cells(41, tcp, map[int8]axdr.Value{
			2: axdr.LongUnsigned(port), 3: octetsOf(ipv4), 4: axdr.LongUnsigned(576), 5: axdr.Unsigned(16), 6: axdr.LongUnsigned(180),
		}, 6),
		Cells(42, ipv4, map[int8]axdr.Value{
			2: octetsOf(mac), 3: ip, 4: axdr.Array(), 5: axdr.Array(), 6: axdr.DoubleLongUnsigned(0xFF000000),
			7: axdr.DoubleLongUnsigned(0), 8: axdr.Boolean(false), 9: axdr.DoubleLongUnsigned(0), 10: axdr.DoubleLongUnsigned(0),
		}, 3, 6, 7, 8, 9, 10),
		Cells(43, mac, map[int8]axdr.Value{2: axdr.OctetString("\x02\x47\x52\x47\x00\x01")}),
		Cells(45, obis.Code{0, 0, 25, 4, 0, 255}, map[int8]axdr.Value{
			2: axdr.OctetString("internet"), 3: axdr.LongUnsigned(0), 4: axdr.Structure(quality, quality),
		}, 2, 3, 4),
	}
}

// GSMDiagnostic gives an object of class 47, version 0 (IEC 62056-6-2, 4.7.11).
func GSMDiagnostic(now func() time.Time) Object {
	return Attributes(47, obis.Code{0, 0, 25, 6, 0, 255}, map[int8]func() axdr.Value{
		2: Fixed(axdr.VisibleString("GRG MOBILE")),
		3: Fixed(axdr.Enum(1)), // registered at home
		4: Fixed(axdr.Enum(0)),
		5: Fixed(axdr.Enum(4)), // LTE
		6: Fixed(axdr.Structure(axdr.LongUnsigned(0x1234), axdr.LongUnsigned(0x0101), axdr.Unsigned(20), axdr.Unsigned(0))),
		7: Fixed(axdr.Array(axdr.Structure(axdr.LongUnsigned(0x1235), axdr.Unsigned(11)))),
		8: func() axdr.Value { return axdr.Value{Tag: axdr.TagDateTime, Str: DateTime(now())} },
	})
}

// Calendar gives an activity calendar (class 20), the days that are special in
// it (11), and the schedule of the end of billing (22, IEC 62056-6-2, 4.5).
// Day 1 is a working day, day 2 a holiday; tariffs are scripts 1 and 2 of
// tariffs, and the schedule runs script 1 of billing. The passive calendar is
// activated by its method, and by the clock where now is not nil.
func Calendar(tariffs, billing obis.Code, now func() time.Time) []Object {
	at := func(hour byte, script uint16) axdr.Value {
		return axdr.Structure(axdr.OctetString(string([]byte{hour, 0, 0, 0})), octetsOf(tariffs), axdr.LongUnsigned(script))
	}
	days := axdr.Array(
		axdr.Structure(axdr.Unsigned(1), axdr.Array(at(0, 2), at(6, 1), at(22, 2))),
		axdr.Structure(axdr.Unsigned(2), axdr.Array(at(0, 2))))
	week := axdr.Structure(axdr.OctetString("W1"))
	for _, day := range []uint8{1, 1, 1, 1, 1, 2, 2} {
		week.Items = append(week.Items, axdr.Unsigned(day))
	}
	weeks := axdr.Array(week)
	seasons := axdr.Array(axdr.Structure(axdr.OctetString("S1"), axdr.OctetString("\xFF\xFF\x01\x01\xFF\x00\x00\x00\x00\x80\x00\xFF"), axdr.OctetString("W1")))
	calendar := Cells(20, obis.Code{0, 0, 13, 0, 0, 255}, map[int8]axdr.Value{
		2: axdr.OctetString("CAL1"), 3: seasons, 4: weeks, 5: days,
		6: axdr.OctetString("CAL2"), 7: seasons, 8: weeks, 9: days, 10: axdr.OctetString(never),
	}, 6, 7, 8, 9, 10)
	passive := calendar.Read
	calendar.Methods = []int8{1}
	var mu sync.Mutex
	active := map[int8]axdr.Value{}
	activate := func() {
		for n := int8(2); n <= 5; n++ {
			active[n], _ = passive(n+4, nil)
		}
	}
	write := calendar.Write
	calendar.Read = func(id int8, rows *Selection) (axdr.Value, bool) {
		mu.Lock()
		defer mu.Unlock()
		if at, _ := passive(10, nil); now != nil {
			if t, ok := parseTime(at.Str, now().Location()); ok && !now().Before(t) {
				activate()
				_ = write(10, axdr.OctetString(never))
			}
		}
		if v, ok := active[id]; ok && rows == nil {
			return v, true
		}
		return passive(id, rows)
	}
	calendar.Act = func(id int8, _ axdr.Value) (axdr.Value, Result) {
		if id != 1 {
			return axdr.Value{}, ReadWriteDenied
		}
		mu.Lock()
		defer mu.Unlock()
		activate()
		return axdr.Value{}, Success
	}
	return []Object{
		calendar,
		specialDays(),
		Cells(22, obis.Code{0, 0, 15, 0, 0, 255}, map[int8]axdr.Value{
			2: axdr.Structure(octetsOf(billing), axdr.LongUnsigned(1)),
			3: axdr.Enum(1), // all at one time
			4: axdr.Array(axdr.Structure(axdr.OctetString("\x00\x00\x00\x00"), axdr.OctetString("\xFF\xFF\xFF\x01\xFF"))),
		}, 2, 4),
		Cells(22, obis.Code{0, 0, 15, 0, 2, 255}, map[int8]axdr.Value{ // the activation of an image
			2: axdr.Structure(octetsOf(obis.Code{0, 0, 10, 0, 107, 255}), axdr.LongUnsigned(1)),
			3: axdr.Enum(1),
			4: axdr.Array(),
		}, 4),
	}
}

// specialDays gives the special days table; its methods insert and delete.
func specialDays() Object {
	day := func(index uint16, date string, id uint8) axdr.Value {
		return axdr.Structure(axdr.LongUnsigned(index), axdr.OctetString(date), axdr.Unsigned(id))
	}
	o := Cells(11, obis.Code{0, 0, 11, 0, 0, 255}, map[int8]axdr.Value{
		2: axdr.Array(day(1, "\xFF\xFF\x01\x01\xFF", 2), day(2, "\xFF\xFF\x0C\x19\xFF", 2)),
	}, 2)
	o.Methods = []int8{1, 2}
	o.Act = func(id int8, argument axdr.Value) (axdr.Value, Result) {
		const most = 100
		table, _ := o.Read(2, nil)
		index := argument.Num
		switch {
		case id == 1 && sameShape(day(0, anyDate, 0), argument):
			index = argument.Items[0].Num
		case id == 2 && argument.Tag == axdr.TagLongUnsigned:
		default:
			return axdr.Value{}, TypeUnmatched
		}
		next := axdr.Array()
		for _, have := range table.Items {
			if have.Items[0].Num != index {
				next.Items = append(next.Items, have)
			}
		}
		if id == 1 {
			next.Items = append(next.Items, argument)
		} else if len(next.Items) == len(table.Items) {
			return axdr.Value{}, ObjectUndefined
		}
		if len(next.Items) > most {
			return axdr.Value{}, OtherReason
		}
		return axdr.Value{}, o.Write(2, next)
	}
	return o
}

// RegisterMonitor gives an object of class 21 (IEC 62056-6-2, 4.5.5) that runs
// scripts of a table when what it watches crosses thresholds.
func RegisterMonitor(code obis.Code, monitored Column, scripts obis.Code, thresholds ...axdr.Value) Object {
	actions := axdr.Array()
	for range thresholds {
		actions.Items = append(actions.Items, axdr.Structure(
			axdr.Structure(octetsOf(scripts), axdr.LongUnsigned(1)), axdr.Structure(octetsOf(scripts), axdr.LongUnsigned(2))))
	}
	return Cells(21, code, map[int8]axdr.Value{
		2: axdr.Array(thresholds...),
		3: axdr.Structure(axdr.LongUnsigned(monitored.Class), octetsOf(monitored.Code), axdr.Integer(monitored.ID)),
		4: actions,
	}, 2, 3, 4)
}

// CompactData gives an object of class 62, version 0 (IEC 62056-6-2, 4.3.10).
// Its buffer has the values of columns one behind the other without their
// tags, which the template description has: a structure. captured gives the
// buffer and the tags.
func CompactData(code obis.Code, template uint8, columns []Column, captured func() []axdr.Value) Object {
	list := axdr.Array()
	for _, c := range columns {
		list.Items = append(list.Items, c.value())
	}
	description := func() axdr.Value {
		b := []byte{byte(axdr.TagStructure), byte(len(columns))}
		for _, v := range captured() {
			b = append(b, byte(v.Tag))
		}
		return axdr.OctetString(string(b))
	}
	buffer := func() axdr.Value {
		var b []byte
		for _, v := range captured() {
			if octets, err := v.AppendBinary(nil); err == nil {
				b = append(b, octets[1:]...)
			}
		}
		return axdr.OctetString(string(b))
	}
	return Attributes(62, code, map[int8]func() axdr.Value{
		2: buffer, 3: Fixed(list), 4: Fixed(axdr.Unsigned(template)), 5: description, 6: Fixed(axdr.Enum(0)),
	})
}

// sameShape says whether a value has the types of another: of structures item
// by item, of arrays all items those of the first that there is.
func sameShape(have, v axdr.Value) bool {
	switch {
	case have.Tag != v.Tag:
		return false
	case have.Tag == axdr.TagStructure:
		if len(have.Items) != len(v.Items) {
			return false
		}
		for i := range have.Items {
			if !sameShape(have.Items[i], v.Items[i]) {
				return false
			}
		}
	case have.Tag == axdr.TagArray && len(have.Items) > 0:
		for _, item := range v.Items {
			if !sameShape(have.Items[0], item) {
				return false
			}
		}
	}
	return true
}
