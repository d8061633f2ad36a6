package agent

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gridgate/agent/status"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/proctest"
)

// What the fog asks for comes again out of the hot store, and with confirm: fog
// the queue moves on the fog's word.
func TestTheFogHasTheLastWord(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim", "gridfog")
	t.Run("resend", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, bin, false)
		r.startAgent()
		r.deliverMore(500)
		proctest.Until(t, "a hundred instant rows", func() bool {
			r.fog.mu.Lock()
			defer r.fog.mu.Unlock()
			return r.fog.last[meter.Instant] > 100
		})
		epoch := r.epoch()
		before := r.fog.duplicates()
		voice, err := mqtt.Dial(t.Context(), mqtt.Options{Address: r.mosq.Address, ClientID: "voice"})
		if err != nil {
			t.Fatal(err)
		}
		defer voice.Close()
		ask := mqtt.Range{Epoch: epoch, First: 1, Last: 100}.AppendJSON(nil)
		if _, err := voice.Publish(t.Context(), mqtt.ResendTopic("zone3", "gw1", meter.Instant), false, ask); err != nil {
			t.Fatal(err)
		}
		proctest.Until(t, "the rows come again", func() bool { return r.fog.duplicates() >= before+100 })
		if missing := r.settle(); len(missing) > 0 {
			t.Errorf("%d committed rows were not delivered", len(missing))
		}
		r.fog.check(t)
	})
	for name, confirm := range map[string]string{"confirm": "fog", "confirm and delta": "fog, delta: true"} {
		confirmed(t, name, bin, confirm)
	}
}

// confirmed is a gateway whose queue moves on the word of gridfog watch, and both
// die on the way.
func confirmed(t *testing.T, name, bin, confirm string) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		r := newRigConfirmedBy(t, bin, false, confirm)
		r.startAgent()
		r.deliverMore(500)
		if _, acked := r.stored(); acked != 0 {
			t.Errorf("%d rows left the queue and nobody has confirmed them", acked)
		}
		watch := func() *proctest.Process {
			p := proctest.Start(t, nil, filepath.Join(bin, "gridfog"), "watch", "-broker", "tcp://"+r.mosq.Address, "-quiet", "-confirm")
			p.Await("connected")
			return p
		}
		first := watch()
		r.agent.Kill() // what was not confirmed comes again, to both
		r.startAgent()
		r.deliverMore(200)
		proctest.Until(t, "confirmed rows", func() bool { _, acked := r.stored(); return acked > 0 })
		r.deliverMore(500)
		first.Kill() // the next one knows nothing that deltas are against
		watch()
		r.deliverMore(500)
		if missing := r.settle(); len(missing) > 0 {
			t.Errorf("%d committed rows were not delivered", len(missing))
		}
		r.fog.check(t)
		r.fog.mu.Lock()
		defer r.fog.mu.Unlock()
		if delta := strings.Contains(confirm, "delta"); delta != (r.fog.deltas > 0) {
			t.Errorf("%d deltas", r.fog.deltas)
		}
		t.Logf("%d deltas", r.fog.deltas)
	})
}

// epoch asks the running agent for the epoch of its store.
func (r *rig) epoch() uint64 {
	r.t.Helper()
	report, err := status.Ask(r.t.Context(), r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	epoch, err := strconv.ParseUint(report.Epoch, 16, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return epoch
}
