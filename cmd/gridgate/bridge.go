package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"gridgate/agent/status"
)

// printBridge prints the bridge of a power line and its nodes.
func printBridge(out io.Writer, b status.Bridge, now time.Time) error {
	up := "down"
	if b.Connected {
		up = "up"
	}
	if b.Kind == "g3" {
		up = "by UDP"
	}
	fmt.Fprintf(out, "\n%s (%s): %s, %d nodes%s\n", b.Line, b.Kind, up, len(b.Nodes), problem(b.Error))
	return printNodes(out, b.Nodes, now)
}

func printNodes(out io.Writer, nodes []status.Node, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSERIAL\tEUI-48\tSTATE\tSINCE\tLAST HEARD\tRTT\tLOST\tLATE\tLEVEL\tMETER")
	for i := range nodes {
		n := &nodes[i]
		rtt, lost, level := "-", "-", "-"
		if n.Asked > 0 {
			rtt = fmt.Sprintf("%.1fs", n.RTT)
			lost = fmt.Sprintf("%d of %d", n.Lost, n.Asked)
		}
		if n.Quality != nil {
			level = fmt.Sprint(n.Quality.Level)
		}
		device := "-"
		if n.Device != 0 {
			device = fmt.Sprint(n.Device)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", device, cmp.Or(n.Serial, "-"), cmp.Or(n.EUI48, "-"), n.State,
			ago(n.Since, now), ago(n.Heard, now), rtt, lost, n.Late, level, cmp.Or(n.Meter, "-"))
	}
	return w.Flush()
}

func ago(t *time.Time, now time.Time) string {
	if t == nil {
		return "-"
	}
	return now.Sub(*t).Round(time.Second).String() + " ago"
}
