package modbus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gridgate/internal/meter"
)

// ErrOtherModel says that the meter is of another kind than its register map.
var ErrOtherModel = errors.New("the meter is of another model")

// identify finds out who answers: the serial number where the map has one, and
// where there is none, or it is of a meter that was not looked at yet, what
// tells the kind of the meter. A meter that refuses both stays unproven.
func (v *visit) identify(ctx context.Context, id *meter.Identity) error {
	if err := v.serial(ctx, id); err != nil {
		return err
	}
	if id.Found != "" && id.Found == v.fits {
		return nil
	}
	v.fits = ""
	for i := range v.cfg.Model.Identity {
		r := &v.cfg.Model.Identity[i]
		value, err := v.show(ctx, &r.Register)
		if err != nil {
			return fmt.Errorf("identity: %w", err)
		}
		if value == "" {
			continue
		}
		if !r.fits(value) {
			return v.located(&r.Register, fmt.Errorf("%w: it shows %q, and %s %s", ErrOtherModel, value, v.cfg.Model.Name, r.wants()))
		}
		v.isKind = v.isKind || len(r.Want) > 0
	}
	v.fits = id.Found
	return nil
}

func (i *Identity) wants() string {
	if len(i.Want) == 0 {
		return "is not for " + strings.Join(i.Not, ", ")
	}
	return "is for " + strings.Join(i.Want, ", ")
}

// serial reads the serial number.
func (v *visit) serial(ctx context.Context, id *meter.Identity) error {
	r := v.cfg.Model.Serial
	if r == nil {
		return nil
	}
	var err error
	if id.Found, err = v.show(ctx, r); err != nil {
		return fmt.Errorf("serial number: %w", err)
	}
	if r.Type != ASCII && id.Want != "" && strings.TrimLeft(id.Want, "0") == strings.TrimLeft(id.Found, "0") {
		id.Found = id.Want // a number has no leading zeros, the plate may
	}
	id.Proven = id.Found != "" && (id.Want == "" || id.Want == id.Found)
	return nil
}

// show reads a register by itself. It gives "" for one that the meter does not
// have.
func (v *visit) show(ctx context.Context, r *Register) (string, error) {
	if _, no := v.refused[r]; no {
		return "", nil
	}
	b := block{function: r.Function, address: r.Address, count: r.Len(), regs: []*Register{r}}
	answer, err := v.request(ctx, b)
	var no refusal
	if errors.As(err, &no) && no.missing() {
		v.refusals = append(v.refusals, refused{b, err})
		return "", nil
	}
	if err != nil {
		return "", err
	}
	delete(v.suspect, r)
	value, _ := r.value(answer)
	return value.String(), nil
}
