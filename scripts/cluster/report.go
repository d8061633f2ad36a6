package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// measure is a figure of a run.
type measure struct {
	name   string
	of     func(outcome) float64
	format string
	growth bool // say how it grows with the fleet
}

func measures() []measure {
	readings := func(o outcome) float64 { return float64(o.plan.Fleet.readings()) }
	values := func(o outcome) float64 { return float64(o.plan.Fleet.rows()) }
	return []measure{
		{"gateways", func(o outcome) float64 { return float64(o.plan.Fleet.Gateways) }, "%.0f", true},
		{"readings (a meter, a quarter hour)", readings, "%.0f", true},
		{"values", values, "%.0f", true},
		{"seconds until all is stored", func(o outcome) float64 { return o.took.Seconds() }, "%.1f", true},
		{"readings/s", func(o outcome) float64 { return readings(o) / o.took.Seconds() }, "%.0f", true},
		{"values/s", func(o outcome) float64 { return values(o) / o.took.Seconds() }, "%.0f", true},
		{"bytes a reading, MQTT", func(o outcome) float64 { return float64(o.end.Bytes) / readings(o) }, "%.1f", true},
		{"bytes a reading, IP both ways, TLS", func(o outcome) float64 { return float64(o.end.Wire) / readings(o) }, "%.1f", true},
		{"memory a gateway at its most, KiB", func(o outcome) float64 { return float64(o.end.Peak) / float64(o.plan.Fleet.Gateways) / 1024 }, "%.0f", true},
		{"memory of a node of the broker, MiB", func(o outcome) float64 { return float64(o.node) / (1 << 20) }, "%.0f", true},
		{"bytes a value in PostgreSQL, with its index", func(o outcome) float64 { return float64(o.room) / values(o) }, "%.0f", true},
		{"connections after the first", func(o outcome) float64 { return float64(o.end.Reconnects) }, "%.0f", false},
		{"rows sent again on request", func(o outcome) float64 { return float64(o.end.Resent) }, "%.0f", false},
		{"missing", func(o outcome) float64 { return float64(o.verdict.Missing) }, "%.0f", false},
		{"double", func(o outcome) float64 { return float64(o.verdict.Double) }, "%.0f", false},
		{"wrong", func(o outcome) float64 { return float64(o.verdict.Wrong + o.verdict.Strange) }, "%.0f", false},
	}
}

// report prints what the runs came to, a column each, and the growth from the
// first to the last.
func report(out io.Writer, all []outcome) {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	for _, m := range measures() {
		fmt.Fprintf(w, "%s\t", m.name)
		for _, o := range all {
			fmt.Fprintf(w, m.format+"\t", m.of(o))
		}
		first, last := m.of(all[0]), m.of(all[len(all)-1])
		if m.growth && len(all) > 1 && first > 0 {
			fmt.Fprintf(w, "x %.2f\t", last/first)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
}
