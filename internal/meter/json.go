package meter

// TimeFormat is how times are printed: RFC 3339 with milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z07:00"

// AppendJSON appends the row as the JSON object that every tool prints:
//
//	{"meter":…,"serial":…,"channel":…,"time":…,"value":…,"unit":…,"quality":…}
//
// value is a number with all its digits where it is one (see
// Value.AppendJSON); quality is the text of Quality.String.
func (r *Row) AppendJSON(b []byte) []byte {
	b = append(r.AppendJSONFields(append(b, '{')), '}')
	return b
}

// AppendJSONFields appends the fields of that object without its braces, for
// tools that put others beside them.
func (r *Row) AppendJSONFields(b []byte) []byte {
	b = AppendJSONString(append(b, `"meter":`...), string(r.Meter))
	b = AppendJSONString(append(b, `,"serial":`...), r.Serial)
	b = AppendJSONString(append(b, `,"channel":`...), string(r.Channel))
	b = append(b, `,"time":"`...)
	b = r.Stamp.UTC().AppendFormat(b, TimeFormat)
	b = r.Value.AppendJSON(append(b, `","value":`...))
	b = AppendJSONString(append(b, `,"unit":`...), r.Unit.String())
	b = AppendJSONString(append(b, `,"quality":`...), r.Quality.String())
	return b
}
