package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/fleet"
)

// writeFleetJSON writes a JSON object a gateway.
func writeFleetJSON(to io.Writer, all []fleet.Gateway) error {
	lines := json.NewEncoder(to)
	lines.SetEscapeHTML(false)
	for i := range all {
		if err := lines.Encode(&all[i]); err != nil {
			return err
		}
	}
	return nil
}

// writeFleetTable writes a line a gateway, and one for all of them.
func writeFleetTable(to io.Writer, all []fleet.Gateway, now time.Time) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GATEWAY\tSTATE\tSINCE\tBACKLOG\tLAST READING\tCLOCK\tVERSION\tCONFIG\tTRUST\tLAYERS\tLAST ORDER\tAT 8 H\tAT 12 H\tNOTE")
	states := map[string]int{}
	for i := range all {
		g := &all[i]
		states[g.State]++
		fmt.Fprintf(w, "%s/%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.Site, g.Gateway, stateText(g), sinceText(g, now), backlogText(g), agoText(g.Reading, now),
			clockText(g.Clock), dash(clip(g.Version, 20)), dash(clip(g.Config, 8)), ordersText(g.Orders), shareText(g.Shares, fleet.FirstHour), shareText(g.Shares, fleet.SecondHour), noteText(g))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	total, count := fleet.Total(all), fmt.Sprintf("%d gateways", len(all))
	if len(all) == 1 {
		count = "1 gateway"
	}
	_, err := fmt.Fprintf(to, "%s: %d online, %d offline, %d unknown%s\n", count, states["online"], states["offline"], states["unknown"], totalText(total))
	return err
}

func totalText(total []fleet.Share) string {
	text := ""
	for _, s := range total {
		text += fmt.Sprintf("; of %s %s by %d h", s.Day, shareText(total, s.Hour), s.Hour)
	}
	return text
}

func dash(s string) string { return cmp.Or(s, "-") }

func stateText(g *fleet.Gateway) string {
	if g.Reason == "" {
		return g.State
	}
	return clip(g.Reason, 20)
}

func sinceText(g *fleet.Gateway, now time.Time) string {
	if g.Since == nil && g.After != nil {
		return "after " + g.After.UTC().Format("2006-01-02 15:04Z")
	}
	return agoText(g.Since, now)
}

func agoText(t *time.Time, now time.Time) string {
	if t == nil {
		return "-"
	}
	return age(now.Sub(*t))
}

// backlogText gives what waits, the lanes that matter most by name.
func backlogText(g *fleet.Gateway) string {
	if g.Backlog == nil {
		return "-"
	}
	text := fmt.Sprint(g.Backlog.Total())
	for _, lane := range []batch.Lane{batch.Alarm, batch.Billing} {
		if n := g.Backlog.Of(lane); n > 0 {
			text += fmt.Sprintf(" (%s %d)", lane, n)
		}
	}
	return text
}

func clockText(c *fleet.Clock) string {
	switch {
	case c == nil:
		return "-"
	case !c.Synchronised:
		return "unsynchronised"
	case c.Bound == nil:
		return "synchronised"
	default:
		return fmt.Sprintf("±%v", time.Duration(*c.Bound)*time.Millisecond)
	}
}

// shareText gives a share in percent, cut and not rounded: 100 % is all.
func shareText(all []fleet.Share, hour int) string {
	for _, s := range all {
		if s.Hour == hour && s.Expected > 0 {
			tenths := s.Complete * 1000 / s.Expected
			return fmt.Sprintf("%d.%d %%", tenths/10, tenths%10)
		}
	}
	return "-"
}

// ordersText gives three columns: the trust document's version, those of the
// layers that run, and what is tried or became of the last order.
func ordersText(c *fleet.Configuration) string {
	if c == nil {
		return "-\t-\t-"
	}
	trust, layers, last := "-", []string{}, "-"
	if c.Trust > 0 {
		trust = fmt.Sprintf("v%d", c.Trust)
	}
	for _, l := range c.Layers {
		text := fmt.Sprintf("v%d", l.Version)
		if _, group, ok := strings.Cut(l.Target, "/_group/"); ok {
			text = clip(group, 20) + " " + text
		}
		layers = append(layers, text)
	}
	switch {
	case c.Trial != nil:
		last = fmt.Sprintf("v%d %s", c.Trial.Version, clip(c.Trial.Step, 20))
	case c.Last != nil && c.Last.Target == "": // refused, and of nobody that is trusted
		last = clip(c.Last.Outcome, 20)
	case c.Last != nil:
		last = fmt.Sprintf("v%d %s", c.Last.Version, clip(c.Last.Outcome, 20))
	}
	return trust + "\t" + dash(clip(strings.Join(layers, ", "), 60)) + "\t" + last
}

func noteText(g *fleet.Gateway) string {
	var notes []string
	if len(g.Unconfirm) > 0 {
		notes = append(notes, "unconfirmed: "+clip(strings.Join(g.Unconfirm, " "), 60))
	}
	if len(g.Withheld) > 0 {
		notes = append(notes, "data budget spent: "+clip(strings.Join(g.Withheld, " "), 60)+" wait")
	}
	if g.Missing > 0 {
		notes = append(notes, fmt.Sprintf("%d rows missing", g.Missing))
	}
	return strings.Join(notes, "; ")
}
