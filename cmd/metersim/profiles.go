package main

import (
	"slices"
	"sync"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

func clockColumn() dlmstest.Column {
	return dlmstest.Column{Class: meter.ClassClock, Code: obis.Code{0, 0, 1, 0, 0, 255}, ID: 2}
}

func registerColumn(c obis.Code) dlmstest.Column {
	return dlmstest.Column{Class: meter.ClassRegister, Code: c, ID: 2}
}

// profiles gives the load profiles, of -capture and of a day, and the billing
// profile, of a month.
func (h household) profiles(drawn, fed func(time.Time) axdr.Value) []dlmstest.Object {
	energy := []dlmstest.Column{registerColumn(code(1, 8, 0)), registerColumn(code(2, 8, 0))}
	status := dlmstest.Column{Class: meter.ClassData, Code: obis.Code{0, 0, 96, 10, 1, 255}, ID: 2}
	first := &series{next: func(t time.Time) time.Time { return t.Truncate(h.capture).Add(h.capture) }, row: func(t time.Time) axdr.Value {
		return axdr.Structure(axdr.OctetString(dlmstest.DateTime(t)), axdr.Unsigned(0), drawn(t), fed(t))
	}}
	totals := func(t time.Time) axdr.Value {
		return axdr.Structure(axdr.OctetString(dlmstest.DateTime(t)), drawn(t), fed(t))
	}
	second := &series{row: totals, next: func(t time.Time) time.Time {
		return time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, t.Location())
	}}
	billing := &series{row: totals, next: func(t time.Time) time.Time {
		return time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, t.Location())
	}}
	plain := append([]dlmstest.Column{clockColumn()}, energy...)
	return []dlmstest.Object{
		first.object(h.now, code(99, 1, 0), append([]dlmstest.Column{clockColumn(), status}, energy...), uint32(h.capture/time.Second), profileDepth),
		second.object(h.now, code(99, 2, 0), plain, uint32(day/time.Second), 366*day),
		billing.object(h.now, billingProfile(), plain, 0, 396*day),
		dlmstest.Data(status.Code, dlmstest.Fixed(axdr.Unsigned(0))),
	}
}

func billingProfile() obis.Code { return obis.Code{0, 0, 98, 1, 0, 255} }

// series is a profile whose rows are a function of time, and what clients do
// to it.
type series struct {
	next func(time.Time) time.Time // the capture after a time
	row  func(time.Time) axdr.Value

	mu       sync.Mutex
	since    time.Time   // when it was reset
	captured []time.Time // on demand
}

// maxCaptured is how many rows a client may have captured.
const maxCaptured = 100

func (s *series) object(now func() time.Time, code obis.Code, columns []dlmstest.Column, period uint32, depth time.Duration) dlmstest.Object {
	o := dlmstest.Profile(code, columns, period, func(selected *dlmstest.Selection) []axdr.Value {
		return s.rows(now(), depth, selected)
	})
	o.Methods = []int8{1, 2}
	o.Act = func(id int8, _ axdr.Value) (axdr.Value, dlmstest.Result) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case id == 1:
			s.since, s.captured = now(), nil
		case id == 2 && len(s.captured) < maxCaptured:
			s.captured = append(s.captured, now())
		default:
			return axdr.Value{}, dlmstest.ReadWriteDenied
		}
		return axdr.Value{}, dlmstest.Success
	}
	return o
}

func (s *series) rows(now time.Time, depth time.Duration, selected *dlmstest.Selection) []axdr.Value {
	s.mu.Lock()
	since, captured := s.since, slices.Clone(s.captured)
	s.mu.Unlock()
	from, to := now.Add(-depth), now
	for _, t := range []time.Time{since, zeroed()} {
		if t.After(from) {
			from = t
		}
	}
	if selected != nil && selected.From.After(from) {
		from = selected.From
	}
	if selected != nil && selected.To.Before(to) {
		to = selected.To
	}
	var times []time.Time
	for t := s.next(from.Add(-time.Nanosecond).In(now.Location())); !t.After(to); t = s.next(t) {
		times = append(times, t.In(now.Location()))
	}
	for _, t := range captured {
		if !t.Before(from) && !t.After(to) {
			times = append(times, t)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	rows := make([]axdr.Value, len(times))
	for i, t := range times {
		rows[i] = s.row(t)
	}
	return rows
}

// The events of the event log.
const (
	eventPowerUp    = 2
	eventDisconnect = 61
	eventReconnect  = 62
)

// maxEvents is how long the event log is.
const maxEvents = 100

// control gives the event log, the switch, the limiter, and scripts that work
// the switch.
func (h household) control() []dlmstest.Object {
	events := dlmstest.NewLog(maxEvents)
	event := func(n uint8) {
		events.Add(axdr.Structure(axdr.OctetString(dlmstest.DateTime(h.now())), axdr.Unsigned(n)))
	}
	event(eventPowerUp)
	work := func(method int8) []dlmstest.ScriptStep {
		return []dlmstest.ScriptStep{{
			Runs: true, Column: dlmstest.Column{Class: 70, Code: switchCode(), ID: method}, Argument: axdr.Integer(0),
		}}
	}
	eventCode := eventColumn(0)
	return []dlmstest.Object{
		events.Object(obis.Code{0, 0, 99, 98, 0, 255}, []dlmstest.Column{clockColumn(), eventCode}, 0, nil),
		dlmstest.Data(eventCode.Code, dlmstest.Fixed(axdr.Unsigned(eventPowerUp))),
		h.acts.orUsual().breaker(event).Object(switchCode()),
		dlmstest.Limiter(obis.Code{0, 0, 17, 0, 0, 255}, registerColumn(code(1, 7, 0)), axdr.DoubleLongUnsigned(10000), h.now),
		dlmstest.Scripts(switchScripts(), work(1), work(2)),
		h.acts.orUsual().image(),
		dlmstest.Cells(1, obis.Code{0, 0, 96, 13, 0, 255}, map[int8]axdr.Value{2: axdr.OctetString("")}, 2), // a text for the customer
	}
}
