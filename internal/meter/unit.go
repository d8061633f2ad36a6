package meter

import "strconv"

// Unit is a physical unit by its number in IEC 62056-6-2, 4.3.2 (register,
// scaler_unit). 0 is no unit known, 255 a number without a unit. Prefixes are
// the value's business: a meter's kWh is Wh with a scale of 3.
type Unit uint8

// The units that gridgate names itself.
const (
	NoUnit     Unit = 0
	Percent    Unit = 56
	Second     Unit = 7
	Minute     Unit = 6
	Celsius    Unit = 9
	CubicMetre Unit = 13
	Watt       Unit = 27
	VoltAmpere Unit = 28
	Var        Unit = 29
	WattHour   Unit = 30
	VAHour     Unit = 31
	VarHour    Unit = 32
	Ampere     Unit = 33
	Volt       Unit = 35
	Hertz      Unit = 44
	Degree     Unit = 8
	Count      Unit = 255
	DecibelMW  Unit = 70
)

var unitNames = [...]string{ //nolint:gochecknoglobals // a constant table
	1: "a", 2: "mo", 3: "wk", 4: "d", 5: "h", 6: "min", 7: "s", 8: "°", 9: "°C",
	10: "currency", 11: "m", 12: "m/s", 13: "m³", 14: "m³", 15: "m³/h", 16: "m³/h",
	17: "m³/d", 18: "m³/d", 19: "l", 20: "kg", 21: "N", 22: "Nm", 23: "Pa", 24: "bar",
	25: "J", 26: "J/h", 27: "W", 28: "VA", 29: "var", 30: "Wh", 31: "VAh", 32: "varh",
	33: "A", 34: "C", 35: "V", 36: "V/m", 37: "F", 38: "Ω", 39: "Ωm²/m", 40: "Wb",
	41: "T", 42: "A/m", 43: "H", 44: "Hz", 45: "1/Wh", 46: "1/varh", 47: "1/VAh",
	48: "V²h", 49: "A²h", 50: "kg/s", 51: "S", 52: "K", 53: "1/V²h", 54: "1/A²h",
	55: "1/m³", 56: "%", 57: "Ah", 60: "Wh/m³", 61: "J/m³", 62: "mol%", 63: "g/m³",
	64: "Pa·s", 65: "J/kg", 70: "dBm", 71: "dBµV", 72: "dB",
}

// String gives the unit's symbol, nothing for no unit, and "unit(N)" for a
// number that has no symbol here.
func (u Unit) String() string {
	if u == NoUnit || u == Count {
		return ""
	}
	if int(u) < len(unitNames) && unitNames[u] != "" {
		return unitNames[u]
	}
	return "unit(" + strconv.Itoa(int(u)) + ")"
}

// ParseUnit gives the unit with that symbol; "" is NoUnit. Where two numbers
// share a symbol (m³ and corrected m³) it gives the lower.
func ParseUnit(s string) (Unit, bool) {
	for i, name := range unitNames {
		if name == s {
			return Unit(i), true
		}
	}
	return 0, false
}
