package uplink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"gridgate/agent/batch"
	"gridgate/agent/uplink"
	"gridgate/internal/linktest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memStore is a store in memory. It fails the test when something that was not
// sent is acknowledged.
type memStore struct {
	full bool // the catalogue cannot be stored
	t    *testing.T
	wake chan struct{}

	mu        sync.Mutex
	rows      [4][]meter.Row // row i has number i+1
	acked     [4]uint64
	peeked    [4]uint64
	catalogue []byte
	fail      error // of Peek on the instant lane
}

func newStore(t *testing.T) *memStore { return &memStore{t: t, wake: make(chan struct{}, 1)} }

func (s *memStore) add(lane meter.Lane, rows ...meter.Row) {
	s.mu.Lock()
	for _, r := range rows {
		r.Lane = lane
		s.rows[lane] = append(s.rows[lane], r)
	}
	s.mu.Unlock()
	s.kick()
}

func (s *memStore) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *memStore) Epoch() uint64 { return 0xFEED }

func (s *memStore) Peek(lane meter.Lane, after uint64, maxRows int) (meter.Span, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil && lane == meter.Instant {
		return meter.Span{}, s.fail
	}
	rows := s.rows[lane][min(after, uint64(len(s.rows[lane]))):]
	rows = rows[:min(len(rows), maxRows)]
	if len(rows) == 0 {
		return meter.Span{Lane: lane}, nil
	}
	last := after + uint64(len(rows))
	s.peeked[lane] = max(s.peeked[lane], last)
	return meter.Span{Lane: lane, Rows: append([]meter.Row(nil), rows...), Runs: []meter.Run{{First: after + 1, Count: uint64(len(rows))}}, Last: last}, nil
}

func (s *memStore) Ack(lane meter.Lane, through uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if through > s.peeked[lane] || through <= s.acked[lane] {
		s.t.Errorf("lane %s: acknowledged %d, after %d, with %d looked at", lane, through, s.acked[lane], s.peeked[lane])
	}
	s.acked[lane] = through
	return nil
}

func (s *memStore) Acked(lane meter.Lane) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked[lane]
}

func (s *memStore) Last(lane meter.Lane) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.rows[lane]))
}

func (s *memStore) Catalogue() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.catalogue, nil
}

func (s *memStore) SaveCatalogue(_ context.Context, b []byte) error {
	if s.full {
		return errors.New("no room")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catalogue = bytes.Clone(b)
	return nil
}

// left counts what is not acknowledged.
func (s *memStore) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for l := range s.rows {
		n += len(s.rows[l]) - int(s.acked[l])
	}
	return n
}

// reading is row number i of a site: every meter and channel in turn, a minute
// a round, registers that rise unevenly.
func reading(i int) meter.Row {
	const meters, channels = 20, 8
	m, c, round := i/channels%meters, i%channels, i/channels/meters
	x := uint64(i) * 0x9E3779B97F4A7C15
	return meter.Row{
		Meter: meter.ID(fmt.Sprintf("m%02d", m)), Serial: fmt.Sprintf("4711%04d", m),
		Channel: meter.Channel(fmt.Sprintf("1-0:%d.8.0*255/3:2", c+1)), Unit: meter.WattHour,
		Stamp: meter.Stamp{Time: 1_750_000_000_000 + int64(round)*60_000 + int64(x>>58), Boot: 1, Mono: int64(round) * 60_000},
		Value: meter.UintValue(uint64(m*1_000_000+round*500)+x>>55, 0),
	}
}

func readings(n int) []meter.Row {
	rows := make([]meter.Row, n)
	for i := range rows {
		rows[i] = reading(i)
	}
	return rows
}

// fog decodes what a broker got, in the order in which it came.
type fog struct {
	catalogues map[batch.Hash]*batch.Catalogue
	decoders   batch.Decoders
	deltas     int         // batches that do not stand alone
	lacks      []meter.Run // what came in deltas against what is not known here
	rows       [4]map[uint64]meter.Row
	last       [4]uint64
	dups       int
	longest    int
	holes      [4]uint64                           // numbers that were declared lost
	gaps       bool                                // numbers may come late
	live       bool                                // it is a subscriber: what comes is not marked as retained
	first      map[meter.Lane]map[uint64]time.Time // when a number came first
}

func newFog() *fog {
	f := &fog{catalogues: map[batch.Hash]*batch.Catalogue{}, first: map[meter.Lane]map[uint64]time.Time{}}
	for l := range f.rows {
		f.rows[l] = map[uint64]meter.Row{}
		f.first[meter.Lane(l)] = map[uint64]time.Time{}
	}
	return f
}

func (f *fog) take(r mqtttest.Received) error {
	topic, err := mqtt.ParseTopic(r.Topic)
	if err != nil {
		return err
	}
	switch topic.Kind {
	case mqtt.State:
		return nil
	case mqtt.Catalogue:
		c, err := batch.ParseCatalogue(r.Payload)
		if err != nil || c.Hash() != batch.Hash(topic.Hash) || r.Retained == f.live {
			return fmt.Errorf("catalogue %x: %w, retained %v", topic.Hash, err, r.Retained)
		}
		f.catalogues[c.Hash()] = c
		return nil
	default:
	}
	find := func(h batch.Hash) *batch.Catalogue { return f.catalogues[h] }
	var base *batch.UnknownBaseError
	if _, _, err := batch.Parse(r.Payload, find); errors.As(err, &base) {
		f.deltas++
	}
	h, span, err := f.decoders.Parse(r.Payload, find)
	if errors.As(err, &base) {
		if _, have := f.rows[h.Lane][span.Runs[0].First]; !have {
			f.lacks = append(f.lacks, span.Runs...)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if h.Lane != topic.Lane || h.Site != "site" || h.Gateway != "gw" || h.Epoch != 0xFEED {
		return fmt.Errorf("header %+v on %s", h, r.Topic)
	}
	f.longest = max(f.longest, len(r.Payload))
	for _, hole := range span.Holes {
		f.holes[h.Lane] += hole.Last - hole.First + 1
	}
	i := 0
	for _, run := range span.Runs {
		for n := run.First; n < run.First+run.Count; n++ {
			if old, again := f.rows[h.Lane][n]; again {
				f.dups++
				if old != span.Rows[i] {
					return fmt.Errorf("lane %s: number %d came with two rows", h.Lane, n)
				}
			} else if n != f.last[h.Lane]+1 && !f.gaps {
				return fmt.Errorf("lane %s: number %d came after %d", h.Lane, n, f.last[h.Lane])
			} else {
				f.last[h.Lane] = max(f.last[h.Lane], n)
				f.first[h.Lane][n] = r.At
			}
			f.rows[h.Lane][n] = span.Rows[i]
			i++
		}
	}
	return nil
}

// check compares with what the store was given.
func (f *fog) check(t *testing.T, s *memStore) {
	t.Helper()
	if err := f.compare(s); err != nil {
		t.Error(err)
	}
}

func (f *fog) compare(s *memStore) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, rows := range s.rows {
		if len(f.rows[l]) != len(rows) {
			return fmt.Errorf("lane %s: the fog has %d rows of %d", meter.Lane(l), len(f.rows[l]), len(rows))
		}
		for i, want := range rows {
			if got := f.rows[l][uint64(i+1)]; got != want {
				return fmt.Errorf("lane %s: number %d is %+v, want %+v", meter.Lane(l), i+1, got, want)
			}
		}
	}
	return nil
}

// site is a gateway's uplink, a link, and a broker in memory behind it, in
// simulated time.
type site struct {
	t      *testing.T
	link   *linktest.Link
	broker *mqtttest.Memory
	store  *memStore
	log    *syncBuffer
	config uplink.Config
	up     *uplink.Uplink
	end    func() // stops the uplink and waits
}

func gprs() linktest.Config { return linktest.Config{Rate: 20_000, Delay: 300 * time.Millisecond} }

// simulate runs test in a bubble. The test calls start.
func simulate(t *testing.T, c linktest.Config, test func(*site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &site{t: t, link: linktest.New(c), broker: &mqtttest.Memory{}, store: newStore(t), log: &syncBuffer{}}
		in := s.link.Listener()
		var all sync.WaitGroup
		all.Go(func() { s.broker.Serve(in) })
		s.config = uplink.Config{
			Site: "site", Gateway: "gw", Version: "1.2.3", Store: s.store, Wake: s.store.wake,
			MQTT: mqtt.Options{Address: "broker:1883", Dial: s.link.Dial, Username: "gw", Password: secret.Of("hunter2")},
			Log:  slog.New(slog.NewTextHandler(s.log, nil)),
		}
		test(s)
		if s.end != nil {
			s.end()
		}
		s.link.Set(linktest.Up)
		_ = in.Close()
		s.broker.CloseAll()
		all.Wait()
		if strings.Contains(s.log.String(), "hunter2") {
			t.Error("the password is in the log")
		}
		if t.Failed() {
			t.Logf("log:\n%s", s.log)
		}
	})
}

func (s *site) start() {
	s.up = uplink.New(s.config)
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.up.Run(ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
	}()
	s.end = func() { cancel(); <-done; s.end = nil }
}

// drained waits until the store is empty.
func (s *site) drained(limit time.Duration) {
	s.t.Helper()
	deadline := time.Now().Add(limit)
	for s.store.left() > 0 {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d rows left after %v; %+v", s.store.left(), limit, s.up.Stats())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// fog decodes what came so far.
func (s *site) fog() *fog {
	s.t.Helper()
	f := newFog()
	for _, r := range s.broker.Received() {
		if err := f.take(r); err != nil {
			s.t.Error(err)
		}
	}
	return f
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

var errDisk = errors.New("disk error")
