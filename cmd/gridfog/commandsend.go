package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gridgate/agent/command"
	"gridgate/agent/order"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

const (
	// A command is published again after repeatFirst, doubling to repeatMost, until
	// a gateway answers; and after repeatQuiet without a word.
	repeatFirst = 5 * time.Second
	repeatMost  = time.Minute
	repeatQuiet = 2 * time.Minute
	// overdue is how long after its end a command's answer is waited for.
	overdue = 30 * time.Second
	// maxParts bounds what a gateway can make this program keep.
	maxParts = 64 << 10
)

// sending sends commands and takes what comes of them.
type sending struct {
	client
	queue queue
	wait  time.Duration
	json  bool
	out   string

	mu      sync.Mutex
	env     cli.Env
	all     []*sent
	changed chan struct{}
}

// sent is a command on its way.
type sent struct {
	made
	hash   string
	action string
	// answers by SITE/GATEWAY; parts are of files, by SITE/GATEWAY and number.
	answers map[string]command.Result
	parts   map[string]map[int][]byte

	next  time.Time // when it is published again
	pause time.Duration
}

// sendFiles sends the commands of the files, or those of the queue that have no
// result.
func (s *sending) sendFiles(ctx context.Context, env cli.Env, args []string) error {
	var all []made
	switch {
	case len(args) == 0 && s.queue.dir == "":
		return cli.Usagef("command send: want DOCUMENTS, or a -queue")
	case len(args) == 0:
		waiting, err := s.queue.documents()
		if err != nil {
			return fmt.Errorf("command: %w", err)
		}
		for _, d := range waiting {
			if !s.queue.isSettled(d) {
				all = append(all, d)
			}
		}
	}
	for _, path := range args {
		d, err := readCommand(path)
		if err != nil {
			return fmt.Errorf("command: %w", err)
		}
		all = append(all, d)
	}
	if len(all) == 0 {
		fmt.Fprintln(env.Stderr, "nothing is to be sent")
		return nil
	}
	return s.send(ctx, env, all)
}

// send publishes commands, again and again, until all have a result or the wait
// is over.
func (s *sending) send(ctx context.Context, env cli.Env, all []made) error {
	s.env, s.changed = env, make(chan struct{}, 1)
	for _, d := range all {
		action, _, err := command.Named(d.d)
		if err != nil {
			return fmt.Errorf("command: %s: %w", d.path, err)
		}
		one := &sent{made: d, hash: hex.EncodeToString(d.d.Hash[:]), action: action, answers: map[string]command.Result{}, parts: map[string]map[int][]byte{}, pause: repeatFirst}
		s.all = append(s.all, one)
	}
	if err := s.prepare(nil); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	s.follow(limited, func(text string) { fmt.Fprintln(env.Stderr, text) }, func(ctx context.Context, conn *mqtt.Conn, connected func()) error {
		for _, filter := range s.filters() {
			if err := conn.Subscribe(ctx, filter, s.take); err != nil {
				return err
			}
		}
		connected()
		return s.repeat(ctx, conn)
	})
	if err := s.show(env); err != nil {
		return err
	}
	return s.verdict()
}

// filters are the topics that answers come on.
func (s *sending) filters() (all []string) {
	for _, d := range s.all {
		t := d.d.Target
		f := mqtt.ResultFilter(meter.ID(t.Site), meter.ID(t.Gateway))
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	return all
}

// repeat publishes what has no answer yet.
func (s *sending) repeat(ctx context.Context, conn *mqtt.Conn) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, d := range s.due(time.Now()) {
			token, err := conn.Publish(ctx, orderTopic(d.d.Target, order.KindCommand), false, d.data)
			if err != nil {
				return err
			}
			select {
			case <-token.Done():
				if err := token.Err(); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if s.settled(time.Now()) {
			return errEnough
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-conn.Done():
			return conn.Err()
		case <-s.changed:
		case <-tick.C:
		}
	}
}

// due gives the commands that are to be published now.
func (s *sending) due(now time.Time) (all []*sent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.all {
		if d.isSettled() || now.Before(d.next) || now.After(d.d.NotAfter) || now.Before(d.d.NotBefore) {
			continue
		}
		d.next = now.Add(d.pause)
		d.pause = min(2*d.pause, repeatMost)
		all = append(all, d)
	}
	return all
}

// isSettled says whether a command has its result. Who is in a group nobody here
// knows: those take until the wait is over.
func (d *sent) isSettled() bool {
	r, ok := d.answers[d.d.Target.String()]
	return ok && r.State.Final()
}

func (s *sending) settled(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.all, func(d *sent) bool { return !d.isSettled() && now.Before(d.d.NotAfter.Add(overdue)) })
}

// take takes what a gateway says.
func (s *sending) take(m mqtt.Message) {
	topic, err := mqtt.ParseTopic(m.Topic)
	if err != nil || topic.Kind != mqtt.Result {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	gateway := string(topic.Site) + "/" + string(topic.Gateway)
	for _, d := range s.all {
		if d.d.ID != string(topic.ID) || !isAt(d.d.Target, topic) {
			continue
		}
		if topic.Part > 0 {
			d.part(gateway, topic.Part, m.Payload)
			continue
		}
		var r command.Result
		if json.Unmarshal(m.Payload, &r) != nil || r.Hash != d.hash {
			continue // of another command that has the same id
		}
		s.answer(d, gateway, r, m.Payload)
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func isAt(t order.Target, topic mqtt.Topic) bool {
	return string(topic.Site) == t.Site && (t.Group != "" || string(topic.Gateway) == t.Gateway)
}

func (d *sent) part(gateway string, n int, payload []byte) {
	if d.parts[gateway] == nil {
		d.parts[gateway] = map[int][]byte{}
	}
	if n <= maxParts && len(payload) <= 2*command.PartSize {
		d.parts[gateway][n] = slices.Clone(payload)
	}
}

// answer takes an answer. mu is held.
func (s *sending) answer(d *sent, gateway string, r command.Result, raw []byte) {
	before, had := d.answers[gateway]
	d.next, d.pause = time.Now().Add(repeatQuiet), repeatFirst
	if had && before.State.Final() && (!r.State.Final() || r.Replayed) {
		return // what came late, or to a repetition
	}
	if r.Parts != nil {
		s.file(d, gateway, &r)
	}
	d.answers[gateway] = r
	if s.queue.dir != "" {
		if b, err := json.Marshal(r); err == nil {
			if err := s.queue.keep(d.d.ID, gateway, b); err != nil {
				fmt.Fprintln(s.env.Stderr, "command:", err)
			}
		}
	}
	if s.json {
		fmt.Fprintf(s.env.Stdout, "{\"gateway\":%q,\"result\":%s}\n", gateway, raw)
		return
	}
	line := fmt.Sprintf("%s  %s %s: %s", gateway, r.ID, d.action, r.State)
	if r.Of > 0 && r.State == command.Running {
		line += fmt.Sprintf(" %d of %d", r.Done, r.Of)
	}
	if r.Text != "" {
		line += ": " + r.Text
	}
	fmt.Fprintln(s.env.Stderr, clip(line, 0))
}

// file puts the parts of a file together. A result that was too long for a
// message takes its place; other files are written.
func (s *sending) file(d *sent, gateway string, r *command.Result) {
	p, have := r.Parts, d.parts[gateway]
	var data []byte
	for n := 1; n <= min(p.Parts, maxParts); n++ {
		data = append(data, have[n]...)
	}
	if sum := sha256.Sum256(data); len(data) != p.Size || hex.EncodeToString(sum[:]) != p.Hash {
		r.Text += fmt.Sprintf("; %s did not come whole: order it anew", clip(p.Name, 40))
		return
	}
	delete(d.parts, gateway)
	var whole command.Result
	if p.Type == "application/json" && json.Unmarshal(data, &whole) == nil && whole.ID == r.ID {
		*r = whole
		return
	}
	path := filepath.Join(s.out, fileName(r.ID, gateway)+"-"+safeName(p.Name))
	if s.queue.dir != "" {
		path = filepath.Join(s.queue.dir, r.ID, fileName("", gateway)+"-"+safeName(p.Name))
	}
	err := os.MkdirAll(filepath.Dir(path), 0o750)
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		r.Text += "; " + err.Error()
		return
	}
	r.Text += "; " + path
}

func fileName(id, gateway string) string {
	name := strings.ReplaceAll(gateway, "/", ".")
	if id != "" {
		name = id + "-" + name
	}
	return name
}

// safeName makes a file's name of what a gateway says.
func safeName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, s)
	return strings.TrimLeft(s[:min(len(s), 64)], ".")
}

// verdict is an error when a command did not come to a good end where it had to.
func (s *sending) verdict() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var bad []string
	for _, d := range s.all {
		if d.d.Target.Group != "" {
			if len(d.answers) == 0 {
				bad = append(bad, fmt.Sprintf("%s: nobody of %s has answered within %v", d.d.ID, d.d.Target, s.wait))
			}
			for _, r := range d.answers {
				if r.State.Final() && r.State != command.Done {
					bad = append(bad, fmt.Sprintf("%s: %s: %s", d.d.ID, r.State, clip(r.Text, 0)))
				}
			}
			continue
		}
		switch r, ok := d.answers[d.d.Target.String()]; {
		case !ok:
			bad = append(bad, fmt.Sprintf("%s: no word from %s within %v", d.d.ID, d.d.Target, s.wait))
		case !r.State.Final():
			bad = append(bad, fmt.Sprintf("%s: still %s at %s after %v", d.d.ID, r.State, d.d.Target, s.wait))
		case r.State != command.Done:
			bad = append(bad, fmt.Sprintf("%s: %s at %s: %s", d.d.ID, r.State, d.d.Target, clip(r.Text, 0)))
		}
	}
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "\n"))
	}
	return nil
}
