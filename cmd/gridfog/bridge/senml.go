package bridge

import (
	"encoding/base64"
	"fmt"
	"strings"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/track"
	"gridgate/internal/meter"
)

// DefaultBase stands before every SenML name when the user gives nothing else.
const DefaultBase = "gridgate/"

// earliest is the first time that SenML can tell, in milliseconds: smaller
// numbers are relative to now (RFC 8428, 4.5.3).
const earliest = (1 << 28) * 1000

// CheckBase says whether SenML names may begin with base: letters, digits and
// -:./_, a letter or digit first (RFC 8428, 4.5.1).
func CheckBase(base string) error {
	for i, c := range []byte(base) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-:./_", rune(c))) {
			return fmt.Errorf("%q: a SenML name has letters, digits, '-', ':', '.', '/' and '_', a letter or digit first", base)
		}
	}
	return nil
}

// SenML makes SenML packs (RFC 8428, JSON).
type SenML struct {
	// Base stands before site, gateway and meter in every name; see CheckBase.
	Base string
	// Resolved makes each record speak for itself, with its whole name and time
	// (RFC 8428, 4.6), for consumers who know JSON but no base fields.
	Resolved bool
}

// Append appends the pack of rows, a JSON array on one line, and says how many
// of the rows are in it. A row whose time SenML cannot tell is left out: its
// gateway or meter had no clock. With no row left nothing is appended.
//
// A record has the name lane/channel below its meter's base name, and one value:
// v with all digits of the meter, vb, vs, or vd. A value that is in doubt has
// /doubtful behind its name, so that nobody takes it for a good one, and what is
// known against a value is a record of its own with /quality behind its name.
func (s SenML) Append(b []byte, rows []track.Reading) (pack []byte, n int) {
	p := &packer{b: b, base: s.Base, resolved: s.Resolved}
	for i := range rows {
		if rows[i].Row.Stamp.Time < earliest {
			continue
		}
		p.row(&rows[i])
		n++
	}
	if n == 0 {
		return b, 0
	}
	return append(p.b, ']'), n
}

// packer is a pack that is being made.
type packer struct {
	b        []byte
	base     string
	resolved bool
	records  int
	time     int64  // the base time
	meter    string // the last base name
}

func (p *packer) row(r *track.Reading) {
	row := &r.Row
	name, remark := rowName(row), remark(row)
	if hasValue(row.Value) {
		value, unit := inSenML(row.Value, row.Unit)
		if Doubtful(row.Quality) {
			p.record(r, name+"/doubtful")
		} else {
			p.record(r, name)
		}
		if unit != "" {
			p.b = meter.AppendJSONString(append(p.b, `,"u":`...), unit)
		}
		p.value(value)
		p.b = append(p.b, '}')
	}
	// Half a year of rows says that it is summer: that alone is no remark.
	if row.Quality&^batch.DaylightSaving != 0 || !hasValue(row.Value) {
		p.record(r, name+"/quality")
		p.b = meter.AppendJSONString(append(p.b, `,"vs":`...), remark)
		p.b = append(p.b, '}')
	}
}

// hasValue says whether there is a value that can be told: a float may be none.
func hasValue(v batch.Value) bool {
	if v.Kind == batch.Float32 || v.Kind == batch.Float64 {
		return v.IsNumber()
	}
	return v.Kind != batch.None
}

// remark is a row's quality in words, "not-a-number" for a float that is none.
func remark(row *batch.Row) string {
	switch {
	case hasValue(row.Value) || row.Value.Kind == batch.None && row.Quality != 0:
		return row.Quality.String()
	case row.Value.Kind == batch.None:
		return "no-value"
	case row.Quality == 0:
		return "not-a-number"
	default:
		return row.Quality.String() + "+not-a-number"
	}
}

// record begins a record with what a reader needs to know whose and when it is.
func (p *packer) record(r *track.Reading, name string) {
	switch p.records {
	case 0:
		p.b = append(p.b, '[')
	default:
		p.b = append(p.b, ',')
	}
	p.b = append(p.b, '{')
	meterName := p.base + r.Site + "/" + r.Gateway + "/" + string(r.Row.Meter) + "/"
	if p.resolved {
		p.records++
		p.b = meter.AppendJSONString(append(p.b, `"n":`...), meterName+name)
		p.b = appendSeconds(append(p.b, `,"t":`...), r.Row.Stamp.Time)
		return
	}
	if meterName != p.meter {
		p.meter = meterName
		p.b = append(meter.AppendJSONString(append(p.b, `"bn":`...), meterName), ',')
	}
	if p.records == 0 {
		p.time = r.Row.Stamp.Time
		p.b = append(appendSeconds(append(p.b, `"bt":`...), p.time), ',')
	}
	p.records++
	p.b = meter.AppendJSONString(append(p.b, `"n":`...), name)
	if d := r.Row.Stamp.Time - p.time; d != 0 {
		p.b = appendSeconds(append(p.b, `,"t":`...), d)
	}
}

func (p *packer) value(v batch.Value) {
	switch v.Kind {
	case batch.Bool:
		p.b = v.AppendJSON(append(p.b, `,"vb":`...))
	case batch.Octets:
		p.b = append(p.b, `,"vd":"`...)
		p.b = append(base64.RawURLEncoding.AppendEncode(p.b, []byte(v.Data)), '"')
	case batch.Text, batch.DateTime:
		p.b = v.AppendJSON(append(p.b, `,"vs":`...))
	case batch.Int, batch.Uint, batch.Float32, batch.Float64:
		p.b = v.AppendJSON(append(p.b, `,"v":`...))
	case batch.None:
	}
}

// appendSeconds appends milliseconds as seconds, with the digits that they
// have.
func appendSeconds(b []byte, ms int64) []byte {
	scale := int8(-3)
	for scale < 0 && ms%10 == 0 {
		ms /= 10
		scale++
	}
	return batch.Value{Kind: batch.Int, Scale: scale, Bits: uint64(ms)}.Append(b)
}
