package cosem

import (
	"context"
	"time"

	"gridgate/dlms"
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

	scales  map[object]kept[dlms.ScalerUnit]
	layouts map[obis.Code]kept[layout]
	// clockRead says that the meter's clock was read, and localTime that it
	// does not tell its deviation from UTC.
	clockRead, localTime bool
	noRanges             bool // the meter gives all rows of a profile or none
}

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

// scalerOf gives the attribute that scales a, if there is one.
func scalerOf(a dlms.Attribute) (id int8, ok bool) {
	switch {
	case (a.Class == meter.ClassRegister || a.Class == meter.ClassExtended) && a.ID == 2:
		return 3, true
	case a.Class == meter.ClassDemandRegister && (a.ID == 2 || a.ID == 3):
		return 4, true
	}
	return 0, false
}

// scale gives scaler and unit of an attribute; an attribute that has none has
// the scaler 0 and no unit.
func (v *visit) scale(ctx context.Context, a dlms.Attribute) (dlms.ScalerUnit, error) {
	id, ok := scalerOf(a)
	if !ok {
		return dlms.ScalerUnit{}, nil
	}
	now := v.cfg.Now()
	key := object{a.Class, a.Code}
	if k, ok := v.cache.scales[key]; ok && k.fresh(now) {
		return k.value, nil
	}
	data, err := v.get(ctx, dlms.Attribute{Class: a.Class, Code: a.Code, ID: id})
	if err != nil {
		return dlms.ScalerUnit{}, err
	}
	scale, err := dlms.ParseScalerUnit(data)
	if err != nil {
		return dlms.ScalerUnit{}, err
	}
	if v.cache.scales == nil {
		v.cache.scales = map[object]kept[dlms.ScalerUnit]{}
	}
	v.cache.scales[key] = kept[dlms.ScalerUnit]{scale, now}
	return scale, nil
}
