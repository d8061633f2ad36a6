package agent

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"gridgate/buffer"
	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

// EventBufferDamaged is the channel of the alarm, of the gateway itself, that
// the buffer's file was damaged; its value says in text what was salvaged and
// what is lost.
const EventBufferDamaged meter.Channel = "event.buffer-damaged"

// damageReport makes the alarm that a damaged file leads to. The store keeps it
// with what was salvaged.
func damageReport(gateway meter.ID) func(buffer.Recovery) []meter.Row {
	return func(r buffer.Recovery) []meter.Row { return []meter.Row{damageAlarm(gateway, describe(r))} }
}

func damageAlarm(gateway meter.ID, text string) meter.Row {
	stamp := meter.Stamp{Time: time.Now().UnixMilli(), Mono: sys.Uptime().Milliseconds(), Bound: meter.UnknownBound}
	if bound, ok := sys.ClockError(); ok {
		stamp.Bound = uint32(bound.Milliseconds())
	}
	return meter.Row{
		Meter: gateway, Channel: EventBufferDamaged, Lane: meter.Alarm, Stamp: stamp,
		Value: meter.TextValue(text),
	}
}

// describe says what became of a damaged file, for machines and people:
// "rows=… waiting=… lost=…", then the reason.
func describe(r buffer.Recovery) string {
	var b strings.Builder
	fmt.Fprintf(&b, "chunks=%d rows=%d waiting=%d cursors=%d lost=%d", r.Chunks, r.Rows, r.Waiting, r.Cursors, r.Lost)
	if r.Unsure {
		b.WriteString(" (or more: the counters are lost too)")
	}
	if r.NoRoom > 0 {
		fmt.Fprintf(&b, " noroom=%d", r.NoRoom)
	}
	if r.Err != nil {
		fmt.Fprintf(&b, " salvage ended early: %v;", r.Err)
	}
	fmt.Fprintf(&b, " reason: %v", r.Reason)
	const most = 1000 // octets of an alarm
	return strings.ToValidUTF8(b.String()[:min(b.Len(), most)], "")
}

// describeMended says what became of damaged chunks.
func describeMended(m buffer.Mended) string {
	text := fmt.Sprintf("stretches=%d lost=%d", m.Stretches, m.Lost)
	if m.First > 0 {
		text += fmt.Sprintf(" lane=%s first=%d last=%d", m.Lane, m.First, m.Last)
	}
	if m.Gap != (meter.Gap{}) {
		text += fmt.Sprintf(" cursors=%d", len(m.Cursors))
	}
	return text + " reason: chunk checksum"
}

// mendFirst and mendMost bound the pause from one mending to the next. It doubles
// while none goes well, as on a full disk: each is a commit.
const (
	mendFirst = 5 * time.Second
	mendMost  = 10 * time.Minute
)

// mending paces Mend.
type mending struct {
	pause atomic.Int64 // 0 while all goes well
}

// failed notes that a mending failed, and says whether it is the first in a row.
func (m *mending) failed() bool {
	before := time.Duration(m.pause.Load())
	m.pause.Store(int64(min(max(2*before, mendFirst), mendMost)))
	return before == 0
}

func (m *mending) succeeded() { m.pause.Store(0) }

// isDue says whether it is time for another, so long after the last.
func (m *mending) isDue(since time.Duration) bool {
	return since >= max(mendFirst, time.Duration(m.pause.Load()))
}

// mend sees to damaged chunks in a sound file: they become holes, their profiles
// are read again, and an alarm tells. The intake calls it.
func (a *Agent) mend(ctx context.Context) (meter.Gap, []meter.Cursor) {
	s := a.store.get()
	a.mu.Lock()
	gateway := a.cfg.Gateway
	a.mu.Unlock()
	m, err := s.Mend(ctx, func(m buffer.Mended) []meter.Row {
		return []meter.Row{damageAlarm(gateway, describeMended(m))}
	})
	if a.store.look(err) != nil {
		if a.mending.failed() {
			a.log.Error("damaged readings cannot be declared; tried again, ever less often", "error", err)
		}
		return meter.Gap{}, nil
	}
	a.mending.succeeded()
	if m.Stretches > 0 {
		a.log.Error("readings on flash were damaged; they are declared, and profiles are read again", "what", describeMended(m))
		a.mu.Lock()
		a.note(fmt.Sprintf("buffer: damaged at %s: %s", time.Now().UTC().Format(time.RFC3339), describeMended(m)))
		a.mu.Unlock()
		select {
		case a.committed <- struct{}{}:
		default:
		}
	}
	return m.Gap, m.Cursors
}

// recovered tells that a damaged file was set aside.
func (a *Agent) recovered(r *buffer.Recovery) {
	a.log.Error("the buffer was damaged and began anew with what could be salvaged", "reason", r.Reason, "kept_as", r.Path,
		"chunks", r.Chunks, "rows", r.Rows, "waiting", r.Waiting, "cursors", r.Cursors, "lost", r.Lost, "unsure", r.Unsure,
		"no_room", r.NoRoom, "ended_early", r.Err)
	a.note(fmt.Sprintf("buffer: began anew at %s: %s; the damaged file is kept as %s",
		time.Now().UTC().Format(time.RFC3339), describe(*r), r.Path))
}
