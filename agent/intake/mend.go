package intake

import (
	"context"

	"gridgate/internal/meter"
)

// Mend has mend called from Run, between two commits. mend adds a gap to cursors
// in the store, and gives both: cursors that wait get it too, and a round that was
// asked for with one of the old cursors is given up, since storing its cursor
// would forget the gap. A later Mend takes the place of one that has not begun.
func (in *Intake) Mend(mend func(context.Context) (meter.Gap, []meter.Cursor)) {
	in.mu.Lock()
	in.mending = mend
	in.mu.Unlock()
	in.wake()
}

func (in *Intake) takeMending() func(context.Context) (meter.Gap, []meter.Cursor) {
	in.mu.Lock()
	defer in.mu.Unlock()
	mend := in.mending
	in.mending = nil
	return mend
}

func (in *Intake) mend(ctx context.Context, mend func(context.Context) (meter.Gap, []meter.Cursor)) {
	gap, changed := mend(ctx)
	if gap == (meter.Gap{}) {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, c := range changed {
		in.gaps[placeOf(c)] = true
	}
	for i := range in.waiting {
		for j := range in.waiting[i].cursors {
			c := &in.waiting[i].cursors[j]
			c.Gaps = c.Gaps.With(meter.Gap{From: gap.From, To: min(gap.To, c.Time)})
			in.gaps[placeOf(*c)] = true
		}
	}
}
