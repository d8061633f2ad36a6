package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/track"
	"gridgate/internal/cli"
	"gridgate/internal/mqtt"
)

// checkFilter says whether a topic filter is one of MQTT.
func checkFilter(filter string) error {
	levels := strings.Split(filter, "/")
	for i, l := range levels {
		if l == "#" && i == len(levels)-1 || l == "+" || !strings.ContainsAny(l, "#+\x00") {
			continue
		}
		return cli.Usagef("decode: -topic %q: + stands for a whole level, and # for all that follow, at the end only", filter)
	}
	if filter == "" || len(filter) > 65535 {
		return cli.Usagef("decode: -topic: want a topic filter as gridgate/1/+/+/up/#")
	}
	return nil
}

// cataloguesOf gives the filter of the catalogues that the batches under a
// filter need.
func cataloguesOf(filter string) string {
	levels := strings.Split(filter, "/")
	site, gateway := "+", "+"
	if len(levels) > 2 && levels[2] != "#" {
		site = levels[2]
	}
	if len(levels) > 3 && levels[3] != "#" {
		gateway = levels[3]
	}
	return fmt.Sprintf("gridgate/1/%s/%s/up/catalog/+", site, gateway)
}

// covers says whether all topics of a narrower filter are of filter too.
func covers(filter, narrower string) bool {
	wide, narrow := strings.Split(filter, "/"), strings.Split(narrower, "/")
	for i, level := range wide {
		switch {
		case level == "#":
			return true
		case i >= len(narrow), level != "+" && level != narrow[i]:
			return false
		}
	}
	return len(wide) == len(narrow)
}

// maxNote bounds what is shown of a message that is no batch, in characters.
const maxNote = 4096

// listener decodes what comes under topics, as it comes.
type listener struct {
	d     *decoder
	notes io.Writer
	stop  context.CancelFunc

	mu       sync.Mutex // guards what follows
	receiver *track.Receiver
	problem  error // of the output
}

// listen prints what comes until ctx ends.
func (d *decoder) listen(ctx context.Context, env cli.Env) error {
	if d.limit > 0 {
		var release context.CancelFunc
		ctx, release = context.WithTimeout(ctx, d.limit)
		defer release()
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	l := &listener{d: d, notes: env.Stderr, stop: stop, receiver: track.NewReceiver(track.New(track.Options{Remember: 1}))}
	for _, c := range d.catalogues {
		l.receiver.Know(c)
	}
	l.receiver.Each = l.batch
	if err := d.client.prepare(l.take); err != nil {
		return err
	}
	d.client.follow(ctx, l.note, l.connect)
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.receiver.Waiting(); n > 0 {
		fmt.Fprintf(l.notes, "gridfog decode: %d batches came without their catalogue\n", n)
	}
	return l.problem
}

func (l *listener) connect(ctx context.Context, conn *mqtt.Conn, connected func()) error {
	for _, filter := range l.d.topics {
		if catalogues := cataloguesOf(filter); !covers(filter, catalogues) {
			if err := conn.Subscribe(ctx, catalogues, l.take); err != nil {
				return err
			}
		}
		if err := conn.Subscribe(ctx, filter, l.take); err != nil {
			return err
		}
	}
	connected()
	select {
	case <-ctx.Done():
		return nil
	case <-conn.Done():
		return conn.Err()
	}
}

func (l *listener) note(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(l.notes, "gridfog decode:", clip(text, maxNote))
}

// take takes a message of the broker. What is no batch and no catalogue is shown
// beside.
func (l *listener) take(m mqtt.Message) {
	topic, err := mqtt.ParseTopic(m.Topic)
	if err != nil || topic.Kind != mqtt.Readings && topic.Kind != mqtt.Catalogue {
		text := string(m.Payload)
		if !utf8.ValidString(text) {
			text = fmt.Sprintf("%d bytes that are no text", len(text))
		}
		l.note(m.Topic + ": " + text)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.receiver.Take(m.Topic, m.Payload); err != nil {
		fmt.Fprintln(l.notes, "gridfog decode:", clip(err.Error(), 1000))
	}
	l.receiver.Asks(time.Now()) // whoever stores asks for what is missing
	if l.problem == nil {
		if l.problem = l.d.printer.flush(); l.problem != nil {
			l.problem = fmt.Errorf("output: %w", l.problem)
			l.stop()
		}
	}
}

// batch prints one.
func (l *listener) batch(h batch.Header, span batch.Span) {
	if err := l.d.rows(l.notes, mqtt.ReadingsTopic(batch.ID(h.Site), batch.ID(h.Gateway), h.Lane), h, span); err != nil && l.problem == nil {
		l.problem = fmt.Errorf("output: %w", err)
		l.stop()
	}
}
