package agent

import (
	"math"
	"strconv"
	"strings"
)

// exposition writes metrics in the text format of Prometheus, 0.0.4: families one
// after the other, each with its help and type before its samples.
type exposition struct {
	b    []byte
	name string
}

// family begins a family of metrics; kind is counter or gauge.
//
//go:noinline
func (e *exposition) family(name, kind, help string) *exposition {
	e.name = name
	e.b = append(e.b, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
	return e
}

// sample adds a sample, with a label where that has a name.
//
//go:noinline
func (e *exposition) sample(v float64, label, value string) {
	e.sample2(v, label, value, "", "")
}

// sample2 adds a sample with two labels.
func (e *exposition) sample2(v float64, one, first, two, second string) {
	e.b = append(e.b, e.name...)
	if one != "" {
		e.b = append(e.b, "{"+one+`="`+escapeLabel(first)+`"`...)
		if two != "" {
			e.b = append(e.b, ","+two+`="`+escapeLabel(second)+`"`...)
		}
		e.b = append(e.b, '}')
	}
	e.b = append(e.b, ' ')
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		e.b = strconv.AppendInt(e.b, int64(v), 10)
	} else {
		e.b = strconv.AppendFloat(e.b, v, 'g', -1, 64)
	}
	e.b = append(e.b, '\n')
}

// metric is a family of one sample.
type metric struct {
	name, kind, help string
	v                float64
}

// all adds families of one sample; those of no known value are left out.
func (e *exposition) all(list []metric) {
	for i := range list {
		if m := &list[i]; !math.IsNaN(m.v) {
			e.family(m.name, m.kind, m.help).sample(m.v, "", "")
		}
	}
}

// unknown is the value of a metric that is left out.
func unknown() float64 { return math.NaN() }

func escapeLabel(s string) string {
	if !strings.ContainsAny(s, "\\\"\n") {
		return strings.ToValidUTF8(s, "�")
	}
	s = strings.ReplaceAll(s, `\`, `\\`)
	s = strings.ReplaceAll(s, `"`, `\"`)
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\n", `\n`), "�")
}

// flag gives 1 for what is so.
func flag(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
