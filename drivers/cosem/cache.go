package cosem

import (
	"context"
	"errors"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// staleAfter is how long what a meter says of its objects is believed.
const staleAfter = 24 * time.Hour

// cache is what a meter said of its objects; it belongs to a serial number,
// or to a connection when the meter shows none.
type cache struct {
	serial string
	opened uint64

	scales  map[dlms.Attribute]kept[dlms.ScalerUnit] // by the attribute that scales
	layouts map[obis.Code]kept[*layout]
	ratios  kept[dlms.Ratios]
	// clockRead says that the meter's clock was read, and localTime that it
	// does not tell its deviation from UTC.
	clockRead, localTime bool
	clockless            kept[bool] // it could not be read beside registers
	// lists says that a list was answered, and listMax how long they may be as
	// was learnt; 0 is as long as there is room.
	lists   bool
	listMax kept[int]
	// explored says that the list of objects was read, and found what it has to
	// be read.
	explored bool
	found    []Found
	// flash is the body of what the caches keep, and flashAt when it was kept.
	flash   []byte
	flashAt int64
}

// object names a COSEM object.
type object struct {
	class uint16
	code  obis.Code
}

// kept is something that was read, and when by the gateway's monotonic clock.
type kept[T any] struct {
	value T
	at    meter.Stamp
}

func (k kept[T]) fresh(now meter.Stamp) bool {
	return k.at.Boot == now.Boot && now.Mono-k.at.Mono < staleAfter.Milliseconds()
}

// takeQuirks fills in what is not configured, where the model says it.
func (c *Config) takeQuirks() {
	if len(c.CounterObjects) == 0 && c.Quirks.CounterObject != (obis.Code{}) {
		c.CounterObjects = []obis.Code{c.Quirks.CounterObject}
	}
	if c.HDLC != nil && c.HDLC.AddrLen == 0 && c.Quirks.AddressLength != 0 {
		h := *c.HDLC
		h.AddrLen, c.HDLC = int(c.Quirks.AddressLength), &h
	}
}

// quirks is what the model does differently, as configured and as learnt.
func (m *Meter) quirks() dlms.Quirks {
	q := m.cfg.Quirks
	if n := m.cache.listMax; n.value > 0 && n.fresh(m.cfg.Now()) {
		q.ListMax = n.value
	}
	return q
}

// keepListMax remembers over sessions how long lists may be.
func (v *visit) keepListMax() {
	if n := v.client.ListMax(); n != v.cfg.Quirks.ListMax && n != v.cache.listMax.value {
		v.cache.listMax = kept[int]{n, v.cfg.Now()}
	}
}

// blameList says, after err to a request for several attributes, that the
// meter takes no lists, if it never answered one: there are meters that grant
// them and keep silent.
func (v *visit) blameList(ctx context.Context, err error) {
	if isTimeout(err) && ctx.Err() == nil && !v.cache.lists && v.client.ListMax() != 1 && v.client.Granted().Conformance.Has(dlms.MultipleReferences) {
		v.cache.listMax = kept[int]{1, v.cfg.Now()}
	}
}

// question is an attribute to read.
type question struct {
	attribute dlms.Attribute
	// take takes its value, or why there is none.
	take func(axdr.Value, error)
	// vain, if not nil, says that it need not be read any more.
	vain func() bool
}

// readAll reads attributes, as many in a request as the meter takes. An error
// of one is that question's; what is returned stops the visit.
func (v *visit) readAll(ctx context.Context, questions []question) error {
	var list []dlms.Attribute
	for {
		list = list[:0]
		left := questions[:0]
		for _, q := range questions {
			if q.vain == nil || !q.vain() {
				left, list = append(left, q), append(list, q.attribute)
			}
		}
		if questions = left; len(list) == 0 {
			return nil
		}
		v.sent = v.cfg.Now()
		items, err := v.client.ReadFirst(ctx, list)
		if err != nil && len(list) > 1 && !v.untried {
			v.blameList(ctx, err)
		}
		switch err = v.tried(ctx, err); {
		case err != nil && !isOfOne(err):
			return err
		case err != nil:
			questions[0].take(axdr.Value{}, err)
			questions = questions[1:]
			continue
		}
		v.cache.lists = v.cache.lists || len(items) > 1
		for i, item := range items {
			if item.Err != nil {
				item.Err = refused(list[i], item.Err)
			} else {
				v.good = list[i]
			}
			questions[i].take(item.Value, item.Err)
		}
		questions = questions[len(items):]
	}
}

// scalerOf gives the attribute that scales a, if there is one.
func scalerOf(a dlms.Attribute) (id int8, ok bool) {
	scaler, ok := dlms.ScalerOf(a)
	return scaler.ID, ok
}

// scales gives the questions for scaler and unit of a, if they are not known.
func (v *visit) scales(a dlms.Attribute, vain func() bool) []question {
	scaler, ok := dlms.ScalerOf(a)
	if !ok {
		return nil
	}
	if k, ok := v.cache.scales[scaler]; ok && k.fresh(v.cfg.Now()) {
		return nil
	}
	if _, asked := v.unscaled[scaler]; asked {
		return nil
	}
	if v.unscaled == nil {
		v.unscaled = map[dlms.Attribute]error{}
	}
	v.unscaled[scaler] = errUnread
	return []question{{attribute: scaler, vain: vain, take: func(data axdr.Value, err error) {
		var scale dlms.ScalerUnit
		if err == nil {
			scale, err = dlms.ParseScalerUnit(data)
		}
		if v.unscaled[scaler] = err; err != nil {
			return
		}
		if v.cache.scales == nil {
			v.cache.scales = map[dlms.Attribute]kept[dlms.ScalerUnit]{}
		}
		v.cache.scales[scaler] = kept[dlms.ScalerUnit]{scale, v.cfg.Now()}
	}}}
}

// errUnread says that what was to be asked was not yet.
var errUnread = errors.New("not read")

// scale gives scaler and unit of an attribute as they were read; an attribute
// that has none has the scaler 0 and no unit.
func (v *visit) scale(a dlms.Attribute) (dlms.ScalerUnit, error) {
	scaler, ok := dlms.ScalerOf(a)
	if !ok {
		return dlms.ScalerUnit{}, nil
	}
	if err := v.unscaled[scaler]; err != nil {
		return dlms.ScalerUnit{}, err
	}
	k, ok := v.cache.scales[scaler]
	if !ok {
		return dlms.ScalerUnit{}, errUnread
	}
	return k.value, nil
}
