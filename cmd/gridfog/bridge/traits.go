package bridge

import (
	"encoding/hex"
	"unicode/utf8"

	"gridgate/agent/batch"
)

// The quality codes that Sparkplug 3.0 has (6.4.11).
const (
	qualityBad   = 0
	qualityGood  = 192
	qualityStale = 500
)

// traits are what is told with a value, as properties of its metric. The zero
// value is of no value.
type traits struct {
	quality    int32
	remark     string // the quality in words, "" when there is nothing to say
	serial     string // the meter's, when it is not the device's
	exact      string // the number, when the data type does not hold it
	occurrence uint8
}

// fill puts a row's value into out, as out's type, and gives what goes with it.
// serial is the device's.
func (m *metric) fill(out *Metric, row *batch.Row, serial string) traits {
	out.Timestamp = row.Stamp.Time
	t := traits{quality: qualityGood, occurrence: row.Occurrence}
	if row.Quality != 0 {
		t.remark = row.Quality.String()
	}
	if row.Serial != serial {
		t.serial = row.Serial
	}
	if row.Unit != m.unit {
		t.remark = with(t.remark, "unit-differs")
	}
	var ok bool
	out.Bits, out.Data, ok = datum(row.Value, m.kind)
	out.Null = !ok
	switch {
	case ok && row.Unit == m.unit:
		if Doubtful(row.Quality) {
			t.quality = qualityBad
		}
		return t
	case !hasValue(row.Value):
		t.quality, t.remark = qualityBad, remark(row)
	default: // the type does not hold it, or it is in another unit than the tag
		out.Bits, out.Data, out.Null = 0, "", true
		t.quality = qualityBad
		t.exact = row.Value.String()
		if !utf8.ValidString(t.exact) {
			t.exact = hex.EncodeToString([]byte(row.Value.Data))
		}
		if unit := row.Unit.String(); unit != "" {
			t.exact += " " + unit
		}
	}
	return t
}

func with(remarks, another string) string {
	if remarks == "" {
		return another
	}
	return remarks + "+" + another
}

// properties gives t as properties, after before was told: what a host may
// have kept from before is taken back.
func (t traits) properties(before traits) []Property {
	list := []Property{{Key: "Quality", Number: t.quality}}
	add := func(key, now, then, none string) {
		switch {
		case now != "":
			list = append(list, Property{Key: key, Text: now})
		case then != "":
			list = append(list, Property{Key: key, Text: none})
		}
	}
	add("Flags", t.remark, before.remark, "good")
	add("Serial", t.serial, before.serial, "-")
	add("Exact", t.exact, before.exact, "-")
	if t.occurrence != 0 || before.occurrence != 0 {
		list = append(list, Property{Key: "Occurrence", Number: int32(t.occurrence)})
	}
	return list
}
