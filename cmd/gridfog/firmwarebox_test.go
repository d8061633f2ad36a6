package main

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"testing"

	"gridgate/agent/order"
	"gridgate/agent/update"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/proctest"
)

// box is a gateway that says what came of firmware as its test wants.
type box struct {
	t    *testing.T
	conn *mqtt.Conn
	site meter.ID
	name meter.ID

	mu     sync.Mutex
	report update.Report
	took   int    // documents
	said   string // the last outcome or step that the broker has
}

// outcomes say what comes of a document at a gateway: a word of update.Outcome,
// "fetching" that goes no further, or "" for silence.
type outcomes func(d *order.Document) (outcome, reason string)

func all(outcome string) outcomes {
	return func(*order.Document) (string, string) { return outcome, "because" }
}

// newBox connects a gateway NAME of the site north, member of groups.
func newBox(t *testing.T, address, name string, groups []string, come outcomes) *box {
	t.Helper()
	conn, err := mqtt.Dial(t.Context(), mqtt.Options{Address: address, ClientID: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	b := &box{t: t, conn: conn, site: "north", name: meter.ID(name)}
	b.report = update.Report{Agent: "v1.3.0", Board: "virt-armv7", Slot: "a", Firmware: "1.3.0", Groups: groups}
	b.say(t.Context())
	topics := []string{mqtt.OrderTopic(b.site, b.name, "", "firmware")}
	for _, g := range groups {
		topics = append(topics, mqtt.OrderTopic(b.site, "", meter.ID(g), "firmware"))
	}
	// What it says must not be said from the connection's own goroutine.
	came := make(chan []byte, 16)
	ctx, cancel := context.WithCancel(t.Context())
	var answering sync.WaitGroup
	answering.Go(func() {
		for {
			select {
			case payload := <-came:
				b.answer(ctx, payload, come)
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		answering.Wait()
	})
	if err := conn.SubscribeAll(t.Context(), topics, func(m mqtt.Message) {
		if len(m.Payload) > 0 {
			came <- bytes.Clone(m.Payload)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *box) answer(ctx context.Context, payload []byte, come outcomes) {
	d, err := order.Read(payload)
	if err != nil {
		b.t.Error(err)
		return
	}
	outcome, reason := come(d)
	b.mu.Lock()
	b.took++
	if l := b.report.Last; l != nil && l.Hash == hexOf(d.Hash) {
		b.mu.Unlock()
		return // the same again
	}
	doc := update.Document{Kind: "firmware", Target: d.Target.String(), Version: d.Version, Hash: hexOf(d.Hash), Firmware: "1.4.0"}
	b.report.Document = &update.Progress{Document: doc, Step: update.Fetching, Have: 50, Need: 200, Waits: "traffic budget"}
	b.mu.Unlock()
	if outcome == "" {
		return
	}
	b.say(ctx)
	if outcome == "fetching" {
		return
	}
	b.mu.Lock()
	b.report.Document, b.report.Last = nil, &update.Outcome{Document: doc, Outcome: outcome, Reason: reason}
	b.mu.Unlock()
	b.say(ctx)
}

// say publishes the report.
func (b *box) say(ctx context.Context) {
	b.mu.Lock()
	text, err := json.Marshal(b.report)
	said := ""
	if d := b.report.Document; d != nil {
		said = string(d.Step)
	} else if l := b.report.Last; l != nil {
		said = l.Outcome
	}
	b.mu.Unlock()
	if err != nil {
		b.t.Error(err)
	}
	token, err := b.conn.Publish(ctx, mqtt.FirmwareTopic(b.site, b.name), true, text)
	if err != nil {
		if ctx.Err() == nil {
			b.t.Error(err)
		}
		return
	}
	select {
	case <-token.Done():
		b.mu.Lock()
		b.said = said
		b.mu.Unlock()
	case <-ctx.Done():
	}
}

// has waits until the broker has an outcome or a step from b.
func (b *box) has(what string) {
	b.t.Helper()
	proctest.Until(b.t, string(b.name)+" has said "+what, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.said == what
	})
}

func (b *box) documents() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.took
}
