package intake

import (
	"maps"
	"slices"

	"gridgate/internal/meter"
)

// shed brings what waits back under the bound; mu is held. The order: instant
// rows; then lane by lane, alarms last, and of each lane the rounds that can be
// read from the meter again before the rows that cannot.
func (in *Intake) shed() {
	for _, lane := range []meter.Lane{meter.Instant, meter.Interval, meter.Billing, meter.Alarm} {
		if in.bytes <= in.cfg.MaxWaiting {
			return
		}
		in.giveUp(lane)
		in.drop(lane)
	}
}

// giveUp takes back rounds of a lane that carry cursors, the newest first.
func (in *Intake) giveUp(lane meter.Lane) {
	for i := len(in.waiting) - 1; i >= 0 && in.bytes > in.cfg.MaxWaiting; i-- {
		if r := in.waiting[i]; r.lane == lane && len(r.cursors) > 0 && len(r.rows) > 0 {
			in.giveUpFrom(i)
		}
	}
}

// giveUpFrom takes back round i and the later ones of the same profiles,
// whatever their lane: no cursor left behind may jump over a row.
func (in *Intake) giveUpFrom(i int) {
	gone := make(map[place]bool)
	for _, c := range in.waiting[i].cursors {
		gone[placeOf(c)] = true
	}
	kept := in.waiting[:i]
	for _, r := range in.waiting[i:] {
		if !slices.ContainsFunc(r.cursors, func(c meter.Cursor) bool { return gone[placeOf(c)] }) {
			kept = append(kept, r)
			continue
		}
		for _, c := range r.cursors {
			gone[placeOf(c)] = true
		}
		in.bytes -= r.bytes
		in.stats.Reread += uint64(len(r.rows))
		in.stats.Waiting -= uint64(len(r.rows))
	}
	clear(in.waiting[len(kept):])
	in.waiting = kept
	maps.Copy(in.gaps, gone)
}

// drop drops rows of a lane, the oldest first, from rounds that carry no
// cursor, and counts them as lost.
func (in *Intake) drop(lane meter.Lane) {
	for i := range in.waiting {
		if in.bytes <= in.cfg.MaxWaiting {
			break
		}
		r := &in.waiting[i]
		if len(r.cursors) > 0 {
			continue
		}
		kept := make([]meter.Row, 0, len(r.rows))
		for _, row := range r.rows {
			if row.Lane != lane || in.bytes <= in.cfg.MaxWaiting {
				kept = append(kept, row)
				continue
			}
			size := rowBytes + len(row.Value.Data)
			in.bytes -= size
			r.bytes -= size
			r.stored = nil
			in.losses[lane]++
			in.stats.Dropped++
			in.stats.Waiting--
		}
		r.rows = kept
	}
	in.waiting = slices.DeleteFunc(in.waiting, func(r round) bool { return len(r.rows) == 0 && len(r.cursors) == 0 })
}
