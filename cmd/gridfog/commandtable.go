package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"gridgate/agent/command"
	"gridgate/internal/cli"
)

// keep writes what a gateway says of a command: the last of it, which is not
// replaced by less.
func (q queue) keep(id, gateway string, result []byte) error {
	dir := filepath.Join(q.dir, id)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	path := filepath.Join(dir, fileName("", gateway)+".json")
	if err := os.WriteFile(path+".new", append(result, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// answers gives what gateways said of a command, by SITE/GATEWAY.
func (q queue) answers(id string) (map[string]command.Result, error) {
	all := map[string]command.Result{}
	files, err := filepath.Glob(filepath.Join(q.dir, id, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var r command.Result
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all[strings.Replace(strings.TrimSuffix(filepath.Base(file), ".json"), ".", "/", 1)] = r
	}
	return all, nil
}

// isSettled says whether a command needs no sending any more.
func (q queue) isSettled(d made) bool {
	answers, err := q.answers(d.d.ID)
	r, ok := answers[d.d.Target.String()]
	return err == nil && ok && r.State.Final() || time.Now().After(d.d.NotAfter)
}

// tableRow is a command at a gateway.
type tableRow struct {
	Command string         `json:"command"`
	Action  string         `json:"action"`
	Gateway string         `json:"gateway"`
	State   string         `json:"state"`
	Time    *time.Time     `json:"time,omitempty"`
	Text    string         `json:"text,omitempty"`
	Result  command.Result `json:"-"`
}

// table shows who has answered what, of the commands in the queue.
func (s *sending) table(env cli.Env) error {
	var rows []tableRow
	bodies, err := filepath.Glob(filepath.Join(s.queue.dir, "*.body"))
	if err != nil {
		return fmt.Errorf("command: %w", err)
	}
	if _, err := os.Stat(s.queue.dir); err != nil {
		return fmt.Errorf("command: %w", err)
	}
	documents, err := s.queue.documents()
	if err != nil {
		return fmt.Errorf("command: %w", err)
	}
	for _, body := range bodies {
		if _, err := os.Stat(strings.TrimSuffix(body, ".body") + ".doc"); errors.Is(err, fs.ErrNotExist) {
			rows = append(rows, tableRow{Command: strings.TrimSuffix(filepath.Base(body), ".body"), Action: "-", Gateway: "-", State: "unsigned"})
		}
	}
	for _, d := range documents {
		answers, err := s.queue.answers(d.d.ID)
		if err != nil {
			return fmt.Errorf("command: %w", err)
		}
		rows = append(rows, rowsFor(d, answers)...)
	}
	return printTable(env.Stdout, rows, s.json)
}

// rowsFor gives a row for each gateway that a command is for or that answered.
func rowsFor(d made, answers map[string]command.Result) (rows []tableRow) {
	action, _, _ := command.Named(d.d) // it was read before
	if _, ok := answers[d.d.Target.String()]; !ok && (d.d.Target.Group == "" || len(answers) == 0) {
		state := "no answer"
		if time.Now().After(d.d.NotAfter) {
			state = "no answer, expired"
		}
		rows = append(rows, tableRow{Command: d.d.ID, Action: action, Gateway: d.d.Target.String(), State: state})
	}
	for _, gateway := range slices.Sorted(maps.Keys(answers)) {
		r := answers[gateway]
		state := string(r.State)
		if r.Of > 0 && r.State == command.Running {
			state += fmt.Sprintf(" %d of %d", r.Done, r.Of)
		}
		rows = append(rows, tableRow{d.d.ID, action, gateway, state, &r.Time, clip(r.Text, 0), r})
	}
	return rows
}

func printTable(out io.Writer, rows []tableRow, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		for _, r := range rows {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "COMMAND\tACTION\tGATEWAY\tSTATE\tTIME\tTEXT")
	for _, r := range rows {
		at := "-"
		if r.Time != nil {
			at = r.Time.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Command, r.Action, r.Gateway, r.State, at, r.Text)
	}
	return w.Flush()
}

// show prints what came of the commands that were sent.
func (s *sending) show(env cli.Env) error {
	if s.json {
		return nil // each message was printed as it came
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var rows []tableRow
	for _, d := range s.all {
		rows = append(rows, rowsFor(d.made, d.answers)...)
	}
	if err := printTable(env.Stdout, rows, false); err != nil {
		return err
	}
	for _, r := range rows {
		showMeters(env.Stdout, r)
	}
	return nil
}

// showMeters prints what came of a command at each meter, and what was read.
func showMeters(out io.Writer, row tableRow) {
	r := row.Result
	if r.Data != nil {
		fmt.Fprintf(out, "%s %s: %s\n", row.Gateway, row.Command, clip(string(r.Data), 0))
	}
	for _, m := range r.Meters {
		fmt.Fprintf(out, "%s %s: %s  %s  %s\n", row.Gateway, row.Command, m.Meter, m.State, clip(m.Text, 0))
		var rows []json.RawMessage
		if m.Data == nil {
			continue
		}
		if json.Unmarshal(m.Data, &rows) != nil {
			rows = []json.RawMessage{m.Data}
		}
		for _, one := range rows {
			fmt.Fprintf(out, "  %s\n", clip(string(one), 0))
		}
	}
}
