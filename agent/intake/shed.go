package intake

import (
	"slices"

	"gridgate/internal/meter"
)

// shed brings what waits back under the bound; mu is held. The order: instant
// rows, the oldest first; rounds with cursors, the newest first, so that the
// cursor left behind never jumps over a row; then by lane, alarms last.
func (in *Intake) shed() {
	if in.bytes <= in.cfg.MaxWaiting {
		return
	}
	in.shedLane(meter.Instant)
	for i := len(in.waiting) - 1; i >= 0 && in.bytes > in.cfg.MaxWaiting; i-- {
		r := in.waiting[i]
		if len(r.cursors) == 0 || r.urgent {
			continue
		}
		in.bytes -= r.bytes
		in.stats.Reread += uint64(len(r.rows))
		in.stats.Waiting -= uint64(len(r.rows))
		in.waiting = slices.Delete(in.waiting, i, i+1)
	}
	for _, lane := range []meter.Lane{meter.Interval, meter.Billing, meter.Alarm} {
		in.shedLane(lane)
	}
}

// shedLane drops rows of a lane, the oldest first, from rounds that carry no
// cursor, and counts them as lost.
func (in *Intake) shedLane(lane meter.Lane) {
	for i := range in.waiting {
		if in.bytes <= in.cfg.MaxWaiting {
			break
		}
		r := &in.waiting[i]
		if len(r.cursors) > 0 && lane > meter.Billing {
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
			in.losses[lane]++
			in.stats.Dropped++
			in.stats.Waiting--
		}
		r.rows = kept
	}
	in.waiting = slices.DeleteFunc(in.waiting, func(r round) bool { return len(r.rows) == 0 && len(r.cursors) == 0 })
}
