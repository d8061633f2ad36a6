package bridge

import (
	"math"

	"gridgate/agent/batch"
)

// senmlUnit is a unit of the SenML registries, and how many places the decimal
// point moves to the right to get there from ours.
type senmlUnit struct {
	symbol string
	shift  int
}

// senmlUnits are the units that the registries have (RFC 8428, 12.1; secondary
// units: RFC 8798, 3), by their number in IEC 62056-6-2. Only powers of ten
// stand between some of them and ours, so that no digit is lost. A quantity of
// electricity is given in the watt-hours that it was metered in.
var senmlUnits = map[batch.Unit]senmlUnit{ //nolint:gochecknoglobals // a constant table
	5: {"h", 0}, 6: {"min", 0}, 7: {"s", 0}, 8: {"deg", 0}, 9: {"Cel", 0}, 11: {"m", 0}, 12: {"m/s", 0},
	13: {"m3", 0}, 14: {"m3", 0}, 19: {"l", 0}, 20: {"kg", 0}, 21: {"N", 0}, 23: {"Pa", 0}, 24: {"hPa", 3},
	25: {"J", 0}, 27: {"W", 0}, 28: {"VA", 0}, 29: {"var", 0}, 30: {"Wh", 0}, 31: {"kVAh", -3}, 32: {"varh", 0},
	33: {"A", 0}, 34: {"C", 0}, 35: {"V", 0}, 37: {"F", 0}, 38: {"Ohm", 0}, 40: {"Wb", 0}, 41: {"T", 0}, 43: {"H", 0},
	44: {"Hz", 0}, 51: {"S", 0}, 52: {"K", 0}, 56: {"/100", 0}, 57: {"Ah", 0}, 63: {"kg/m3", -3}, 70: {"dBm", 0}, 72: {"dB", 0},
}

// inSenML gives a value and its unit as SenML has them. A unit that is not
// registered keeps its symbol behind a colon, which no registered one has, so
// that the number is not taken for one without a unit.
func inSenML(v batch.Value, u batch.Unit) (batch.Value, string) {
	own := u.String()
	if own == "" { // none known, or a number without one
		return v, ""
	}
	to, ok := senmlUnits[u]
	scale := int(v.Scale) + to.shift
	if !ok || scale < math.MinInt8 || scale > math.MaxInt8 {
		return v, "gridgate:" + own
	}
	v.Scale = int8(scale)
	return v, to.symbol
}
