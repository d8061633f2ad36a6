package modbus

import (
	"fmt"
	"time"
)

// relearn is how long it is believed that a meter does not have a register:
// firmware is updated, and an exception may have been a whim.
const relearn = 24 * time.Hour

// learnt is what a meter showed that it does not give: registers at all, and
// stretches of them in one piece.
type learnt struct {
	cuts    map[cut]bool
	refused map[*Register]error
	suspect map[*Register]bool // refused in the visit before
	since   time.Time          // when there was nothing of it
}

// refused is a block of one register that the meter does not have.
type refused struct {
	block
	err error
}

func (l *learnt) expire(now time.Time) {
	if now.Sub(l.since) >= relearn {
		clear(l.cuts)
		clear(l.refused)
		clear(l.suspect)
		l.since = now
	}
}

// refusedBlock takes to mind that the meter refused b, and gives the parts that
// it may answer. A cut is kept only when it helped: when the parts that it
// leaves are answered.
func (v *visit) refusedBlock(b block, no refusal, err error) []block {
	if no.missing() {
		delete(v.cuts, b.cause)
		if parts, ok := b.split(v.cfg.Model, v.cuts); ok {
			return parts
		}
		v.refusals = append(v.refusals, refused{b, err})
	}
	for _, r := range b.regs {
		v.found[r].err = v.located(r, err)
	}
	return nil
}

// remember keeps what the meter refused in this visit. A meter that gave
// nothing at all is not known by that: it may be starting, or be another one.
// Nor is one refusal enough: on a bad line it may be that of another request.
func (v *visit) remember() {
	if !v.gave {
		return
	}
	for _, no := range v.refusals {
		if !v.suspect[no.regs[0]] {
			v.suspect[no.regs[0]] = true
			continue
		}
		v.cuts[cut{no.function, no.address}] = true
		for _, r := range no.regs {
			v.learnt.refused[r] = v.located(r, no.err)
		}
	}
}

// located says of which meter, register and line of the map an error is.
func (v *visit) located(r *Register, err error) error {
	where := ""
	if v.cfg.Model.File != "" {
		where = fmt.Sprintf("%s:%d: ", v.cfg.Model.File, r.Line)
	}
	return fmt.Errorf("%smeter %s: register 0x%04X: %w", where, v.cfg.ID, r.Address, err)
}
