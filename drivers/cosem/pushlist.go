package cosem

import (
	"strings"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// custom is what the makers of meters with a customer port (HAN) have in print
// and do not send: the scalers of their lists, of which the first or second
// value is the version. Kamstrup sends codes and values, Kaifa the same in
// Sweden and values only in Norway. Others send scaler and unit with them.
type custom struct {
	ampere, volt, energy int8
	known                bool
}

// heard takes note of the version of a list, if v is one.
func (c *custom) heard(v axdr.Value) {
	if v.Tag != axdr.TagVisibleString && v.Tag != axdr.TagOctetString {
		return
	}
	switch {
	case strings.HasPrefix(v.Str, "Kamstrup_V"):
		*c = custom{ampere: -2, energy: 1, known: true}
	case strings.HasPrefix(v.Str, "KFM_"):
		*c = custom{ampere: -3, volt: -1, known: true}
	}
}

// scale gives scaler and unit of a number of such a list; zero is not known.
func (c *custom) scale(a dlms.Attribute, v axdr.Value) dlms.ScalerUnit {
	_, signed := v.Int64()
	_, unsigned := v.Uint64()
	if !signed && !unsigned || !c.known || a.Class != meter.ClassRegister || a.Code[0] != 1 {
		return dlms.ScalerUnit{}
	}
	unit := func(active, reactive meter.Unit, scaler int8) dlms.ScalerUnit {
		switch a.Code[2] {
		case 1, 2:
			return dlms.ScalerUnit{Scaler: scaler, Unit: uint8(active)}
		case 3, 4:
			return dlms.ScalerUnit{Scaler: scaler, Unit: uint8(reactive)}
		}
		return dlms.ScalerUnit{}
	}
	switch what := a.Code[2]; {
	case a.Code[3] == 8:
		return unit(meter.WattHour, meter.VarHour, c.energy)
	case a.Code[3] != 7:
		return dlms.ScalerUnit{}
	case what == 31, what == 51, what == 71:
		return dlms.ScalerUnit{Scaler: c.ampere, Unit: uint8(meter.Ampere)}
	case what == 32, what == 52, what == 72:
		return dlms.ScalerUnit{Scaler: c.volt, Unit: uint8(meter.Volt)}
	}
	return unit(meter.Watt, meter.Var, 0)
}

// unnamedList gives the objects of Kaifa's lists of values without codes
// (KFM_001, lists 2 and 3 of meters with one phase and with three); nil for
// others. List 1 is one number that tells nothing.
func unnamedList(v axdr.Value) []dlms.Column {
	if v.Tag != axdr.TagStructure || len(v.Items) == 0 || !strings.HasPrefix(v.Items[0].Str, "KFM_") {
		return nil
	}
	phases, clock := []uint8{31, 51, 71, 32, 52, 72}, false
	switch len(v.Items) {
	case 13:
	case 18:
		clock = true
	case 9:
		phases = []uint8{31, 32}
	case 14:
		phases, clock = []uint8{31, 32}, true
	default:
		return nil
	}
	at := func(class uint16, code obis.Code) dlms.Column {
		return dlms.Column{Attribute: dlms.Attribute{Class: class, Code: code, ID: 2}}
	}
	list := []dlms.Column{
		at(meter.ClassData, obis.Code{1, 0, 0, 2, 129, 255}), at(meter.ClassData, obis.Code{0, 0, 96, 1, 0, 255}),
		at(meter.ClassData, obis.Code{0, 0, 96, 1, 7, 255}),
	}
	for what := range uint8(4) {
		list = append(list, at(meter.ClassRegister, obis.Code{1, 0, what + 1, 7, 0, 255}))
	}
	for _, what := range phases {
		list = append(list, at(meter.ClassRegister, obis.Code{1, 0, what, 7, 0, 255}))
	}
	if !clock {
		return list
	}
	list = append(list, at(meter.ClassClock, obis.Code{0, 0, 1, 0, 0, 255}))
	for what := range uint8(4) {
		list = append(list, at(meter.ClassRegister, obis.Code{1, 0, what + 1, 8, 0, 255}))
	}
	return list
}
