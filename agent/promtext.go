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
func (e *exposition) family(name, kind, help string) *exposition {
	e.name = name
	e.b = append(e.b, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
	return e
}

// sample adds a sample with pairs of label and value.
func (e *exposition) sample(v float64, labels ...string) {
	e.b = append(e.b, e.name...)
	for i := 0; i+1 < len(labels); i += 2 {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		e.b = append(e.b, sep)
		e.b = append(e.b, labels[i]+`="`+escapeLabel(labels[i+1])+`"`...)
	}
	if len(labels) > 1 {
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

// one is a family of one sample.
func (e *exposition) one(name, kind, help string, v float64) {
	e.family(name, kind, help).sample(v)
}

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
