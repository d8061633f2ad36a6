package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gridgate/agent/status"
)

// printHealth says how the gateway does in a word, and why.
func printHealth(w io.Writer, h status.Health) {
	fmt.Fprintf(w, "health\t%s\n", h.State)
	for _, why := range h.Why {
		fmt.Fprintf(w, "\t- %s\n", why)
	}
}

// printMachine shows what the agent works with: configuration, buffer, modem.
func printMachine(w io.Writer, r status.Report, now time.Time) {
	fmt.Fprintf(w, "config\t%s, %s, hash %.16s\n", orDash(r.Config.File), count(r.Config.Meters, "meter"), r.Config.Hash)
	if b := r.Buffer; b != nil {
		fmt.Fprintf(w, "buffer\t%s, %.1f of at most %.1f MB\n", b.Path, float64(b.Size)/1e6, float64(b.Most)/1e6)
	} else {
		fmt.Fprintf(w, "buffer\tnot open\n")
	}
	m := r.Modem
	if m == nil {
		return
	}
	said := []string{m.State}
	for _, s := range []string{m.Registration, m.Operator, m.Technology, m.Model} {
		if s != "" && s != m.State {
			said = append(said, s)
		}
	}
	if m.Signal != nil {
		signal := fmt.Sprintf("%d dBm (%s)", *m.Signal, m.Kind)
		if m.Weak {
			signal += ", weak"
		}
		said = append(said, signal)
	}
	if m.LastReset != nil {
		said = append(said, fmt.Sprintf("%s, last %s ago by %s", count(int(m.Resets), "reset"), now.Sub(*m.LastReset).Round(time.Second), m.LastBy))
	}
	if m.NextReset != nil {
		said = append(said, fmt.Sprintf("next reset in %s", max(0, m.NextReset.Sub(now)).Round(time.Second)))
	}
	fmt.Fprintf(w, "modem\t%s%s\n", strings.Join(said, ", "), problem(m.Error))
}

// printLines shows the lines.
func printLines(w io.Writer, lines []status.Line) {
	fmt.Fprintln(w, "\nLINE\tMETERS\tREAD\tVISITS\tTIME-OUTS\tDAMAGED\tERROR")
	for _, l := range lines {
		silent, damaged := l.Silent, l.Garbled
		if l.Requests > 0 { // which are repeated, so that a visit may be well all the same
			silent, damaged = l.Lost, l.Damaged
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%s\n", l.Line, l.Meters, l.Read, l.Visits, silent, damaged, orDash(l.Error))
	}
}

// worstFirst gives the meters by state, those first that want somebody.
func worstFirst(meters []status.Meter) []status.Meter {
	states := []string{"locked", "exchanged", "failing", "partial", "waiting"} // ok comes last
	sorted := make([]status.Meter, 0, len(meters))
	for _, state := range states {
		for _, m := range meters {
			if m.State == state {
				sorted = append(sorted, m)
			}
		}
	}
	for _, m := range meters {
		if !slices.Contains(states, m.State) {
			sorted = append(sorted, m)
		}
	}
	return sorted
}
