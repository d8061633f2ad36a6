package cosem

import (
	"context"
	"errors"
	"fmt"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

var (
	// errNoClock says that the rows of a profile carry no time.
	errNoClock = errors.New("the profile has no column with the clock")
	// errElements says that columns are elements of one attribute: their values
	// cannot be told from one another by the name of a channel.
	errElements = errors.New("several elements of the attribute are captured")
	// errTwice says that a column is there already.
	errTwice = errors.New("captured twice")
)

// layout is what the rows of a profile hold.
type layout struct {
	*dlms.Layout
	columns []column
	// selector is how rows are selected, as was learnt, and page how many
	// captures a request asks for.
	selector dlms.Selector
	page     uint32
	held     int // how often in a row rows were left for a later visit
	// checked is on which association the meter said that it is so, 0 for none:
	// before each it may have been set up anew.
	checked uint64
}

// sameAs says whether the meter captures the same, as often.
func (l *layout) sameAs(m *layout) bool {
	return l.Sum() == m.Sum() && l.Period == m.Period && l.Sort == m.Sort
}

// maxHeld is for how many visits rows wait for a scaler that the meter may give
// at another time. Then they are read without its column.
const maxHeld = 3

type column struct {
	channel meter.Channel
	scale   dlms.ScalerUnit
	wrong   error // with the column
	err     error // why the column's values are not given
}

// columnsOf gives what the meter captures in a profile. It is read once and then
// daily, and compared on every association: values in the wrong channels are
// worse than a turn.
func (v *visit) columnsOf(ctx context.Context, profile obis.Code) (*layout, error) {
	now := v.cfg.Now()
	before, ok := v.cache.layouts[profile]
	fresh := ok && before.fresh(now)
	if fresh && before.value.checked == v.entered {
		return before.value, nil
	}
	l, err := v.readLayout(ctx, profile)
	if err != nil {
		return nil, err
	}
	same := ok && before.value.sameAs(l)
	if fresh && same {
		before.value.checked = v.entered
		return before.value, nil
	}
	if ok && !same {
		v.forgetScales(l)
	}
	if v.cache.layouts == nil {
		v.cache.layouts = map[obis.Code]kept[*layout]{}
	}
	l.checked = v.entered
	v.cache.layouts[profile] = kept[*layout]{l, now}
	return l, nil
}

// forgetScales has the scalers of all columns read anew, but for those that were
// read in this visit.
func (v *visit) forgetScales(l *layout) {
	for _, c := range l.Columns {
		if scaler, ok := dlms.ScalerOf(c.Attribute); ok {
			if _, asked := v.unscaled[scaler]; !asked {
				delete(v.cache.scales, scaler)
			}
		}
	}
}

// layout gives the layout of a profile, with the scalers as they are now.
func (v *visit) layout(ctx context.Context, profile obis.Code) (*layout, error) {
	l, err := v.columnsOf(ctx, profile)
	if err != nil {
		return nil, err
	}
	questions := v.clockQuestion()
	for i := range l.columns {
		if l.gives(i) {
			questions = append(questions, v.scales(l.Columns[i].Attribute, nil)...)
		}
	}
	if err := v.readAll(ctx, questions); err != nil {
		return nil, err
	}
	passing := false
	for i := range l.columns {
		c := &l.columns[i]
		if c.err = c.wrong; c.err == nil && l.gives(i) {
			c.scale, c.err = v.scale(l.Columns[i].Attribute)
			if c.err == nil {
				c.err = v.model.cannot(c.scale.Unit)
			}
		}
		if passing = passing || isPassing(c.err); passing && l.held < maxHeld {
			l.held++ // behind the cursor nothing is read again
			return nil, fmt.Errorf("column %s: %w", c.channel.Short(), c.err)
		}
	}
	if !passing {
		l.held = 0
	}
	return l, nil
}

// isPassing says whether the meter may answer another time what it did not now.
func isPassing(err error) bool {
	var exception *dlms.ExceptionError
	return errors.As(err, &exception) || errors.Is(err, dlms.TemporaryFailure) || errors.Is(err, errUnread) ||
		errors.Is(err, dlms.ErrMalformed) && !errors.Is(err, errRatio)
}

// gives says whether a column gives readings.
func (l *layout) gives(i int) bool {
	return i != l.Clock && i != l.Status && l.columns[i].wrong == nil
}

func (v *visit) readLayout(ctx context.Context, profile obis.Code) (*layout, error) {
	read, err := v.client.ReadColumns(ctx, profile)
	if err = v.tried(ctx, err); err != nil {
		return nil, err
	}
	if read.Clock < 0 {
		return nil, fmt.Errorf("%w: %w", dlms.ErrMalformed, errNoClock)
	}
	return newLayout(read, v.cfg.Quirks.Selector), nil
}

// newLayout finds out which columns give readings.
func newLayout(read *dlms.Layout, selector dlms.Selector) *layout {
	l := &layout{Layout: read, columns: make([]column, len(read.Columns)), selector: selector, page: captures}
	for i, c := range read.Columns {
		a := c.Attribute
		l.columns[i].channel = meter.ChannelOf(a.Code, a.Class, a.ID)
		for j, other := range read.Columns[:i] {
			switch {
			case other.Attribute != a || j == read.Clock || j == read.Status:
			case other.Index == c.Index:
				l.columns[i].wrong = errTwice
			default:
				l.columns[i].wrong, l.columns[j].wrong = errElements, errElements
			}
		}
	}
	return l
}

// clockQuestion asks for the meter's clock, if it is not known yet whether its
// times come without their deviation from UTC: then it is asked without, too.
func (v *visit) clockQuestion() []question {
	if v.cache.clockRead {
		return nil
	}
	return []question{{attribute: clockTime(), take: func(data axdr.Value, err error) {
		if err == nil {
			_, err = v.takeClock(data)
		}
		if err != nil {
			v.cache.clockRead = true // nobody knows: with the deviation
		}
	}}}
}
