package command

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gridgate/agent/order"
	"gridgate/internal/meter"
)

// Why a command is refused, beside what agent/order says.
var (
	ErrAction     = errors.New("unknown action")
	ErrMeter      = errors.New("no such meter")
	ErrProtected  = errors.New("protected meter")
	ErrSignatures = errors.New("too few signatures")
	ErrCap        = errors.New("more disconnects than the trust document allows")
	ErrLocked     = errors.New("control is locked")
	ErrFull       = errors.New("too many commands wait")
	ErrReplayed   = errors.New("refused: it was carried out before, and is not again")
	ErrOtherID    = errors.New("another command has this id")
)

const (
	// maxTargets bounds the meters of one command.
	maxTargets = 2000
	// freely is how many meters one signature is enough for, where something is
	// changed.
	freely = 10
)

// Meter is a meter of the configuration.
type Meter struct {
	ID        meter.ID
	Serial    string // as configured; empty for none
	Protected bool   // it is never switched
}

// plan is a command that was read and may be carried out.
type plan struct {
	document *order.Document
	action   *Action
	executor Executor
	targets  []Meter  // one without an ID for the gateway
	by       string   // roles that signed
	named    []string // the meters, as the command has them
}

type payload struct {
	Action string   `yaml:"action"`
	Meters []string `yaml:"meters"`
}

// read reads what a document orders, and finds the meters that it is for. The plan
// is given also where they are not all there.
func (e *Engine) read(d *order.Document) (*plan, error) {
	pl, err := e.readHead(d)
	if err != nil {
		return nil, err
	}
	if pl.targets, err = e.find(pl.named); err != nil {
		return pl, err
	}
	if n := len(pl.targets); pl.action.Targets == One && n != 1 {
		return nil, fmt.Errorf("%w: %s is of one meter, and %d are named", order.ErrMalformed, pl.action.Name, n)
	}
	return pl, nil
}

// readHead does without meters.
func (e *Engine) readHead(d *order.Document) (*plan, error) {
	var p payload
	with, err := d.DecodeCommand(&p)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(e.actions, func(a Action) bool { return a.Name == p.Action })
	if i < 0 {
		return nil, fmt.Errorf("%w: %q; want %s", ErrAction, clip(p.Action), e.names())
	}
	pl := &plan{document: d, action: &e.actions[i], by: signers(d), named: p.Meters}
	if pl.executor, err = pl.action.New(with); err != nil {
		return nil, fmt.Errorf("%s: %w", pl.action.Name, err)
	}
	switch n := len(p.Meters); {
	case pl.action.Targets == Nothing && n > 0:
		return nil, fmt.Errorf("%w: %s is not of meters: leave meters out", order.ErrMalformed, p.Action)
	case pl.action.Targets != Nothing && n == 0:
		return nil, fmt.Errorf("%w: %s wants meters: ids or serial numbers, or \"*\" for all", order.ErrMalformed, p.Action)
	case n > maxTargets:
		return nil, fmt.Errorf("%w: %d meters, at most %d are taken", order.ErrTooLarge, n, maxTargets)
	}
	return pl, nil
}

func (e *Engine) names() string {
	var all []string
	for _, a := range e.actions {
		all = append(all, a.Name)
	}
	return strings.Join(all, ", ")
}

// find gives the meters that a command names.
func (e *Engine) find(names []string) (found []Meter, err error) {
	if len(names) == 0 {
		return []Meter{{}}, nil
	}
	have := e.cfg.Meters()
	if slices.Equal(names, []string{"*"}) {
		if len(have) == 0 {
			return nil, fmt.Errorf("%w: there are none", ErrMeter)
		}
		return have, nil
	}
	var wrong []string
	for _, name := range names {
		var is []Meter
		for _, m := range have {
			if string(m.ID) == name || m.Serial != "" && m.Serial == name {
				is = append(is, m)
			}
		}
		switch {
		case len(is) == 0:
			wrong = append(wrong, fmt.Sprintf("%q", clip(name)))
		case len(is) > 1:
			return nil, fmt.Errorf("%w: %q is of %d meters", ErrMeter, name, len(is))
		case slices.ContainsFunc(found, func(m Meter) bool { return m.ID == is[0].ID }):
			return nil, fmt.Errorf("%w: %q is named twice", order.ErrMalformed, name)
		default:
			found = append(found, is[0])
		}
	}
	if n := len(wrong); n > 0 {
		more := ""
		if n > 10 {
			wrong, more = wrong[:10], fmt.Sprintf(" and %d more", n-10)
		}
		return nil, fmt.Errorf("%w: %s%s", ErrMeter, strings.Join(wrong, ", "), more)
	}
	return found, nil
}

// mayBe says whether enough of the right keys have signed.
func (p *plan) mayBe(t *order.Trust) error {
	d, a := p.document, p.action
	need := t.Threshold(a.Role)
	why := fmt.Sprintf("%d keys of the role %s must", need, a.Role)
	several := func(because string) {
		if need < 2 {
			need, why = 2, fmt.Sprintf("two keys of the role %s must, %s", a.Role, because)
		}
	}
	switch {
	case a.Two:
		several("since it is " + a.Name)
	case a.AfterCut != Repeat && len(p.targets) > freely:
		several(fmt.Sprintf("since it is of more than %d meters", freely))
	case t.WantsTwo(a.Name):
		several("since the trust document says so of " + a.Name)
	}
	switch n := d.Signed(a.Role); {
	case n == 0:
		return fmt.Errorf("%w: %s wants the role %s, and it is signed by %s", order.ErrRole, a.Name, a.Role, p.by)
	case n < need:
		return fmt.Errorf("%w: %d has signed, and %s", ErrSignatures, n, why)
	}
	return nil
}

// mayNow says whether the gateway's state and its meters allow it.
func (e *Engine) mayNow(p *plan, t *order.Trust) error {
	if p.action.Role == order.Control && e.cfg.Memory.Lost() {
		return fmt.Errorf("%w: the gateway lost what it knew of commands (state.db), until somebody anchors it anew", ErrLocked)
	}
	if p.action.Switches {
		for _, m := range p.targets {
			if m.Protected {
				return fmt.Errorf("%w: %s is never switched; nothing was done at any meter", ErrProtected, m.ID)
			}
		}
	}
	if p.action.Disconnects && len(p.targets) > t.DisconnectsPerHour {
		return fmt.Errorf("%w: %d meters, and %d an hour are allowed", ErrCap, len(p.targets), t.DisconnectsPerHour)
	}
	return nil
}

// changes says whether the command leaves something other than it was.
func (p *plan) changes() bool { return p.action.AfterCut != Repeat }

// written says whether it goes to the audit log.
func (p *plan) written() bool { return p.action.Role == order.Control || p.changes() }

// signers says which roles have signed, and how many keys of each.
func signers(d *order.Document) string {
	var all []string
	for _, r := range order.Roles() {
		if n := d.Signed(r); n > 0 {
			all = append(all, fmt.Sprintf("%s×%d", r, n))
		}
	}
	return strings.Join(all, " ")
}

// clip shortens what is shown of a document.
func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
