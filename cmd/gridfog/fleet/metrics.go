package fleet

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"time"

	"gridgate/agent/batch"
)

// Tool is how the watching itself does.
type Tool struct {
	Connected bool   // to the broker
	Messages  uint64 // taken
	Refused   uint64 // of them, that could not be read
	// Database says whether the last look at the database went well; nil where
	// there is none.
	Database *bool
}

// WriteMetrics writes the text format of Prometheus, version 0.0.4. A value that
// nobody knows is left out.
func WriteMetrics(to io.Writer, all []Gateway, tool Tool) error {
	w := &metrics{out: bufio.NewWriter(to)}
	w.family("gridfog_broker_connected", "gauge", "Whether this tool is connected to the broker.")
	w.sample("", truth(tool.Connected))
	w.family("gridfog_messages_total", "counter", "Messages taken from the broker.")
	w.sample("", float64(tool.Messages))
	w.family("gridfog_messages_refused_total", "counter", "Messages that could not be read.")
	w.sample("", float64(tool.Refused))
	if tool.Database != nil {
		w.family("gridfog_database_up", "gauge", "Whether the last look at the database went well.")
		w.sample("", truth(*tool.Database))
	}
	w.family("gridgate_gateways", "gauge", "Gateways by what their state says.")
	states := map[string]int{}
	for _, g := range all {
		states[g.State]++
	}
	for _, s := range []string{"online", "offline", "unknown"} {
		w.sample(labels("state", s), float64(states[s]))
	}
	w.alive(all)
	w.times(all)
	w.work(all)
	w.shares(all)
	return w.out.Flush()
}

func (w *metrics) alive(all []Gateway) {
	w.each(all, "gridgate_gateway_online", "gauge", "Whether the gateway is connected.", func(g *Gateway) (float64, bool) {
		return truth(g.State == "online"), g.State != "unknown"
	})
	w.family("gridgate_gateway_info", "gauge", "What runs on the gateway.")
	for i := range all {
		g := &all[i]
		w.sample(labels("site", g.Site, "gateway", g.Gateway, "version", g.Version, "config", g.Config, "epoch", g.Epoch, "time_zone", g.TimeZone), 1)
	}
}

func (w *metrics) times(all []Gateway) {
	for _, m := range []struct {
		name, help string
		of         func(*Gateway) *time.Time
	}{
		{"gridgate_gateway_state_since_timestamp_seconds", "When the gateway went online or offline.", func(g *Gateway) *time.Time { return g.Since }},
		{"gridgate_gateway_start_timestamp_seconds", "When the program on the gateway started.", func(g *Gateway) *time.Time { return g.Started }},
		{"gridgate_gateway_told_timestamp_seconds", "When the gateway wrote its state: backlog and clock are of then.", func(g *Gateway) *time.Time { return g.Told }},
		{"gridgate_gateway_last_reading_timestamp_seconds", "When the gateway last read something, as far as is known here.", func(g *Gateway) *time.Time { return g.Reading }},
		{"gridgate_gateway_last_batch_timestamp_seconds", "When a batch of the gateway last came here.", func(g *Gateway) *time.Time { return g.Arrived }},
	} {
		w.each(all, m.name, "gauge", m.help, func(g *Gateway) (float64, bool) {
			t := m.of(g)
			if t == nil {
				return 0, false
			}
			return float64(t.UnixMilli()) / 1000, true
		})
	}
}

func (w *metrics) work(all []Gateway) {
	w.each(all, "gridgate_gateway_meters", "gauge", "Meters in the gateway's configuration.", func(g *Gateway) (float64, bool) {
		if g.Meters == nil {
			return 0, false
		}
		return float64(*g.Meters), true
	})
	w.each(all, "gridgate_gateway_clock_synchronised", "gauge", "Whether somebody vouches for the gateway's clock.", func(g *Gateway) (float64, bool) {
		return truth(g.Clock != nil && g.Clock.Synchronised), g.Clock != nil
	})
	w.each(all, "gridgate_gateway_clock_error_bound_seconds", "gauge", "The most by which the gateway's clock is wrong.", func(g *Gateway) (float64, bool) {
		if g.Clock == nil || g.Clock.Bound == nil {
			return 0, false
		}
		return float64(*g.Clock.Bound) / 1000, true
	})
	w.each(all, "gridgate_gateway_missing_rows", "gauge", "Sequence numbers that should have come since this tool listens, and did not.", func(g *Gateway) (float64, bool) {
		return float64(g.Missing), g.Arrived != nil
	})
	w.family("gridgate_gateway_backlog_rows", "gauge", "Rows on the gateway that wait for their acknowledgement.")
	for i := range all {
		for _, lane := range lanes() {
			if g := &all[i]; g.Backlog != nil {
				w.sample(labels("site", g.Site, "gateway", g.Gateway, "lane", lane.String()), float64(g.Backlog.Of(lane)))
			}
		}
	}
	w.lanes(all, "gridgate_gateway_lane_unconfirmed", "Whether the fog does not confirm the rows of a lane.", func(g *Gateway) []string { return g.Unconfirm })
	w.lanes(all, "gridgate_gateway_lane_withheld", "Whether the rows of a lane wait for the data budget.", func(g *Gateway) []string { return g.Withheld })
}

// lanes writes a 1 for the lanes that the gateway tells, a 0 for the others.
func (w *metrics) lanes(all []Gateway, name, help string, of func(*Gateway) []string) {
	w.family(name, "gauge", help)
	for i := range all {
		g := &all[i]
		if g.State != "online" {
			continue
		}
		for _, lane := range lanes() {
			told := false
			for _, s := range of(g) {
				told = told || s == lane.String()
			}
			w.sample(labels("site", g.Site, "gateway", g.Gateway, "lane", lane.String()), truth(told))
		}
	}
}

func lanes() []batch.Lane {
	return []batch.Lane{batch.Alarm, batch.Billing, batch.Interval, batch.Instant}
}

func (w *metrics) shares(all []Gateway) {
	for _, m := range []struct {
		name, help string
		of         func(Share) (float64, bool)
	}{
		{"gridgate_gateway_day_intervals_expected", "Intervals of the last local day whose deadline has passed.", func(s Share) (float64, bool) { return float64(s.Expected), true }},
		{"gridgate_gateway_day_intervals_in_time", "Of these, that were at the fog by the deadline.", func(s Share) (float64, bool) { return float64(s.Complete), true }},
		{"gridgate_gateway_day_intervals_in_time_ratio", "The share of them, from 0 to 1.", func(s Share) (float64, bool) { return s.Ratio() }},
	} {
		w.family(m.name, "gauge", m.help)
		for i := range all {
			for _, s := range all[i].Shares {
				if v, ok := m.of(s); ok {
					w.sample(labels("site", all[i].Site, "gateway", all[i].Gateway, "deadline", strconv.Itoa(s.Hour)+"h"), v)
				}
			}
		}
	}
}

// metrics writes families one after another; a family without a sample is left
// out whole.
type metrics struct {
	out        *bufio.Writer
	name, head string
}

func (w *metrics) family(name, kind, help string) {
	w.name, w.head = name, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"
}

func (w *metrics) sample(labels string, v float64) {
	_, _ = w.out.WriteString(w.head) // Flush tells
	w.head = ""
	_, _ = w.out.WriteString(w.name + labels + " " + strconv.FormatFloat(v, 'g', -1, 64) + "\n")
}

func (w *metrics) each(all []Gateway, name, kind, help string, of func(*Gateway) (float64, bool)) {
	w.family(name, kind, help)
	for i := range all {
		if v, ok := of(&all[i]); ok {
			w.sample(labels("site", all[i].Site, "gateway", all[i].Gateway), v)
		}
	}
}

// labels gives names and values as they stand behind a metric's name.
func labels(pairs ...string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		b.WriteByte(sep)
		b.WriteString(pairs[i] + `="` + escape.Replace(strings.ToValidUTF8(pairs[i+1], "?")) + `"`)
	}
	return b.String() + "}"
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
