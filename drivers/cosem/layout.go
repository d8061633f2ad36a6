package cosem

import (
	"context"
	"errors"
	"fmt"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// errNoClock says that the rows of a profile carry no time.
var errNoClock = errors.New("the profile has no column with the clock")

// layout is what the rows of a profile hold.
type layout struct {
	columns []column
	clock   int    // the column with the capture time
	status  int    // the column with the status word, -1 for none
	period  uint32 // seconds between captures, 0 when they are not regular
}

type column struct {
	attribute dlms.Attribute
	channel   meter.Channel
	scale     dlms.ScalerUnit
	err       error // why the column's values are not given
}

func (l layout) clockAttribute() dlms.Attribute { return l.columns[l.clock].attribute }

// layout gives the layout of a profile, with the scalers as they are now.
func (v *visit) layout(ctx context.Context, buffer dlms.Attribute) (layout, error) {
	now := v.cfg.Now()
	k, ok := v.cache.layouts[buffer.Code]
	if !ok || !k.fresh(now) {
		l, err := v.readLayout(ctx, buffer)
		if err != nil {
			return layout{}, err
		}
		if v.cache.layouts == nil {
			v.cache.layouts = map[obis.Code]kept[layout]{}
		}
		k = kept[layout]{l, now}
		v.cache.layouts[buffer.Code] = k
	}
	for i := range k.value.columns {
		c := &k.value.columns[i]
		if i == k.value.clock || i == k.value.status {
			continue
		}
		c.scale, c.err = v.scale(ctx, c.attribute)
		if c.err != nil && !isRefusal(c.err) && !errors.Is(c.err, dlms.ErrMalformed) {
			return layout{}, c.err
		}
	}
	return k.value, nil
}

func (v *visit) readLayout(ctx context.Context, buffer dlms.Attribute) (layout, error) {
	attribute := func(id int8) dlms.Attribute {
		return dlms.Attribute{Class: buffer.Class, Code: buffer.Code, ID: id}
	}
	data, err := v.get(ctx, attribute(3))
	if err != nil {
		return layout{}, err
	}
	captured, err := dlms.ParseColumns(data)
	if err != nil {
		return layout{}, err
	}
	l := layout{clock: -1, status: -1}
	for i, c := range captured {
		a := c.Attribute
		switch {
		case a.Class == meter.ClassClock && a.ID == 2 && l.clock < 0:
			l.clock = i
		case isStatus(a) && l.status < 0:
			l.status = i
		}
		l.columns = append(l.columns, column{attribute: a, channel: meter.ChannelOf(a.Code, a.Class, a.ID)})
	}
	if l.clock < 0 {
		return layout{}, fmt.Errorf("%w: %w", dlms.ErrMalformed, errNoClock)
	}
	if data, err = v.get(ctx, attribute(4)); err != nil && !isRefusal(err) {
		return layout{}, err
	}
	if period, ok := data.Uint64(); ok && period <= 1<<32-1 {
		l.period = uint32(period)
	}
	return l, nil
}

// isStatus says whether a is the status word of a profile, 0-0:96.10.x.
func isStatus(a dlms.Attribute) bool {
	return a.Class == meter.ClassData && a.ID == 2 && a.Code[0] == 0 && a.Code[2] == 96 && a.Code[3] == 10
}
