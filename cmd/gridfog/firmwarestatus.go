package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"gridgate/agent/update"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// status shows who has what.
func (r *rollout) status(ctx context.Context, env cli.Env, args []string) error {
	r.env = env
	if len(args) > 0 {
		return cli.Usagef("firmware status: %q: it takes no arguments", args[0])
	}
	if err := checkID("firmware status", "site", r.site); err != nil {
		return err
	}
	if err := r.readMembers(); err != nil {
		return fmt.Errorf("firmware status: %w", err)
	}
	if err := r.prepare(nil); err != nil {
		return err
	}
	err := r.once(ctx, func(ctx context.Context, conn *mqtt.Conn) error {
		if err := r.listen(ctx, conn, []meter.ID{meter.ID(r.site)}); err != nil {
			return err
		}
		return r.settle(ctx, conn, func() bool { return false })
	})
	if err != nil {
		return fmt.Errorf("firmware status: %w", err)
	}
	return r.table()
}

// table prints what gateways say of their firmware.
func (r *rollout) table() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := tabwriter.NewWriter(r.env.Stdout, 0, 8, 2, ' ', 0)
	if !r.json {
		fmt.Fprintln(t, "GATEWAY\tBOARD\tAGENT\tSLOT\tFIRMWARE\tDOCUMENT\tSTEP\tPROGRESS\tOUTCOME\tREASON")
	}
	e := json.NewEncoder(r.env.Stdout)
	for _, name := range slices.Sorted(maps.Keys(r.gateways)) {
		g := r.gateways[name]
		named := false
		if r.members != nil {
			_, named = r.members.gateways[name]
		}
		if !g.has && !named || r.site != "" && !strings.HasPrefix(name, r.site+"/") {
			continue // it has said nothing of firmware, and nobody asked for it
		}
		if r.json {
			if err := e.Encode(g.row(name)); err != nil {
				return err
			}
			continue
		}
		cells := append([]string{name}, g.cells()...)
		for i := range cells {
			if cells[i] = clip(cells[i], maxTold); cells[i] == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

// statusRow is a gateway in JSON.
type statusRow struct {
	Gateway string         `json:"gateway"`
	State   string         `json:"state,omitempty"` // online or offline
	Report  *update.Report `json:"report,omitempty"`
	Error   string         `json:"error,omitempty"`
}

func (g *heard) row(name string) statusRow {
	row := statusRow{Gateway: name, State: g.state}
	switch {
	case g.fault != nil:
		row.Error = "unreadable: " + g.fault.Error()
	case g.has:
		row.Report = &g.Report
	}
	return row
}

// cells gives the columns of a gateway from BOARD on.
func (g *heard) cells() []string {
	document, step, progress, outcome, reason := "", "", "", "", ""
	switch {
	case g.fault != nil:
		outcome, reason = "unreadable", g.fault.Error()
	case !g.has:
		reason = "it has not said a word of firmware"
	case g.Document != nil:
		d := g.Document
		document, step, progress, reason = shortName(d.Document), string(d.Step), share(d), d.Waits
	case g.Last != nil:
		document, outcome, reason = shortName(g.Last.Document), g.Last.Outcome, g.Last.Reason
	}
	return []string{g.Board, g.Agent, g.Slot, g.Firmware, document, step, progress, outcome, reason}
}

// share is how much of what has to be fetched is there.
func share(p *update.Progress) string {
	if p.Need <= 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", min(max(p.Have, 0), p.Need)/max(p.Need/100, 1))
}

func shortName(d update.Document) string {
	if d.Target == "" {
		return "?"
	}
	text := fmt.Sprintf("%s v%d", d.Target, d.Version)
	if d.Firmware != "" {
		text += " (" + d.Firmware + ")"
	}
	return text
}

// withdraw takes documents, and with a directory of objects their parts, from
// the broker.
func (r *rollout) withdraw(ctx context.Context, env cli.Env, args []string) error {
	r.env = env
	if len(args) == 0 {
		return cli.Usagef("firmware withdraw: want the signed DOCUMENTS to take back")
	}
	all, err := readReleases(strings.Join(args, ","))
	if err != nil {
		return fmt.Errorf("firmware withdraw: %w", err)
	}
	for _, one := range all {
		if r.objects != "" && one.manifest.URL == "" {
			if r.packed[one.path], err = one.objectsIn(r.objects); err != nil {
				return fmt.Errorf("firmware withdraw: %w", err)
			}
		}
	}
	if err := r.prepare(nil); err != nil {
		return err
	}
	err = r.once(ctx, func(ctx context.Context, conn *mqtt.Conn) error { return r.takeBack(ctx, conn, all) })
	if err != nil {
		return fmt.Errorf("firmware withdraw: %w", err)
	}
	return nil
}

// takeBack clears documents that are still what is retained on their topics, and
// then the parts that no other document at the broker names.
func (r *rollout) takeBack(ctx context.Context, conn *mqtt.Conn, all []*release) error {
	var topics []string
	for _, one := range all {
		topics = append(topics, one.topic())
	}
	there, err := r.look(ctx, conn, topics)
	if err != nil {
		return err
	}
	out := &sender{ctx: ctx, conn: conn}
	for _, one := range all {
		switch now, err := parseRelease(there[one.topic()]); {
		case there[one.topic()] == nil:
			fmt.Fprintf(r.env.Stderr, "%s: nothing is retained on %s\n", one.path, one.topic())
			continue
		case err == nil && now.hash != one.hash:
			fmt.Fprintf(r.env.Stderr, "%s: another one is retained on %s: %s; it stays\n", one.path, one.topic(), now)
			continue
		}
		if err := out.publish(one.topic(), nil); err != nil {
			return err
		}
		r.mu.Lock()
		delete(r.retained, one.topic())
		r.mu.Unlock()
		fmt.Fprintf(r.env.Stderr, "%s: taken from %s\n", one.path, one.topic())
	}
	if err := out.flush(); err != nil || r.objects == "" {
		return err
	}
	return r.clear(out, all)
}

// clear takes parts from the broker that no other document there names, an
// object's index first: what a cut leaves does not look whole.
func (r *rollout) clear(out *sender, all []*release) error {
	cleared := map[string]bool{}
	for _, one := range all {
		needed, err := r.needed(out, one.site())
		if err != nil {
			return err
		}
		n, stay := 0, 0
		for _, o := range r.packed[one.path] {
			for _, topic := range o.topics(one.site()) {
				switch {
				case cleared[topic]:
					continue
				case needed[topic]:
					stay++
					continue
				}
				cleared[topic] = true
				if err := out.publish(topic, nil); err != nil {
					return err
				}
				n++
			}
		}
		if err := out.flush(); err != nil {
			return err
		}
		fmt.Fprintf(r.env.Stderr, "%s: %d parts taken from the site %s\n", one.path, n, one.site())
		if stay > 0 {
			fmt.Fprintf(r.env.Stderr, "%s: %d parts stay: other documents at the broker name them\n", one.path, stay)
		}
	}
	return nil
}

// needed gives the topics of the parts that documents name which are still at
// the broker.
func (r *rollout) needed(out *sender, site meter.ID) (map[string]bool, error) {
	filters := []string{mqtt.OrderTopic(site, "+", "", "firmware"), mqtt.OrderTopic(site, "", "+", "firmware")}
	there, err := r.look(out.ctx, out.conn, filters)
	if err != nil {
		return nil, err
	}
	var indexes []string
	for topic, data := range there {
		if t, err := mqtt.ParseTopic(topic); err != nil || t.Kind != mqtt.Order || t.Site != site {
			continue
		}
		other, err := parseRelease(data)
		if err != nil {
			continue // gateways refuse it
		}
		for _, files := range other.manifest.Boards {
			for i := range files {
				indexes = append(indexes, partTopic(site, files[i].Index[:]))
			}
		}
	}
	needed := map[string]bool{}
	if len(indexes) == 0 {
		return needed, nil
	}
	if there, err = r.look(out.ctx, out.conn, indexes); err != nil {
		return nil, err
	}
	for _, topic := range indexes {
		needed[topic] = true
		for sum := range slices.Chunk(there[topic], 32) {
			if len(sum) == 32 {
				needed[partTopic(site, sum)] = true
			}
		}
	}
	return needed, nil
}
