package cosem

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// Object is an object that a meter has for the client that asks.
type Object struct {
	dlms.Object
	// Readable are the attributes that the client may read, rising, if
	// HasRights: meters that are spoken to by short names do not say.
	Readable  []int8
	HasRights bool
}

// ClassName gives the name of the object's class.
func (o Object) ClassName() string { return dlms.ClassName(o.Class) }

// Objects reads which objects the meter has for this client. Errors are as of
// Visit.
func (m *Meter) Objects(ctx context.Context) ([]Object, error) {
	var objects []Object
	_, err := m.converse(ctx, func(ctx context.Context, v *visit) (err error) {
		objects, err = v.objects(ctx)
		return err
	})
	return objects, err
}

// association is the object of the association that is open; of which class
// depends on how the meter is spoken to.
func association() obis.Code { return obis.Code{0, 0, 40, 0, 0, 255} }

func (v *visit) objects(ctx context.Context) ([]Object, error) {
	if v.cfg.ShortNames {
		objects, err := v.shortObjects(ctx)
		if err != nil {
			return nil, fmt.Errorf("list of objects: %w", err)
		}
		return objects, nil
	}
	data, err := v.get(ctx, dlms.Attribute{Class: dlms.ClassAssociationLN, Code: association(), ID: 2})
	if isRefusal(err) {
		old, again := v.shortObjects(ctx)
		if again == nil || !isRefusal(again) {
			return old, again
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list of objects: %w", err)
	}
	rights, err := dlms.ParseObjects(data)
	if err != nil {
		return nil, fmt.Errorf("list of objects: %w", err)
	}
	version := uint8(1)
	for _, r := range rights {
		if r.Class == dlms.ClassAssociationLN && r.Code == association() {
			version = r.Version
		}
	}
	objects := make([]Object, 0, len(rights))
	for _, r := range rights {
		o := Object{Object: r.Object, HasRights: true}
		for id, mode := range r.Attributes {
			if mayRead(mode, version) {
				o.Readable = append(o.Readable, id)
			}
		}
		sortby.Stable(o.Readable, cmp.Compare)
		objects = append(objects, o)
	}
	return objects, nil
}

// shortObjects gives the objects of an old meter.
func (v *visit) shortObjects(ctx context.Context) ([]Object, error) {
	data, err := v.get(ctx, dlms.Attribute{Class: dlms.ClassAssociationSN, Code: association(), ID: 2})
	if err != nil {
		return nil, err
	}
	entries, err := dlms.ParseShortNames(data)
	if err != nil {
		return nil, err
	}
	objects := make([]Object, 0, len(entries))
	for _, e := range entries {
		objects = append(objects, Object{Object: e})
	}
	return objects, nil
}

// mayRead says whether an access mode lets read. Up to version 2 of the
// association the modes are numbered, from 3 on they are bits (IEC 62056-6-2,
// 4.4.4).
func mayRead(mode, version uint8) bool {
	if version >= 3 {
		return mode&1 != 0
	}
	const readOnly, readWrite, provenReadOnly, provenReadWrite = 1, 3, 4, 6
	return mode == readOnly || mode == readWrite || mode == provenReadOnly || mode == provenReadWrite
}

// Rows reads the rows of a profile that were captured from p.Since, itself not
// included, up to until, itself included, both in milliseconds since 1970. It
// hands them to take in the order of the profile, some thousand at a time, with
// who the meter is and what failed. Errors are those of take, and as of Visit.
func (m *Meter) Rows(ctx context.Context, p meter.Profile, until int64, take func(meter.Got) error) error {
	for {
		p.Until = until
		got, err := m.Visit(ctx, meter.Ask{Profiles: []meter.Profile{p}})
		since := p.Since
		for _, c := range got.Cursors {
			since = c.Time
		}
		more := err == nil && len(got.Rows) >= maxRows && since > p.Since && since < until && !m.givesWhole(p)
		kept := got.Rows[:0]
		for _, r := range got.Rows {
			if r.Stamp.Time <= until {
				kept = append(kept, r)
			}
		}
		got.Rows, p.Since = kept, since
		if err := errors.Join(err, take(got)); err != nil || !more {
			return err
		}
	}
}

// givesWhole says whether the meter gives all rows of a profile or none.
func (m *Meter) givesWhole(p meter.Profile) bool {
	code, _, _, _ := p.Channel.Attribute()
	k, ok := m.cache.layouts[code]
	return ok && k.value.selector == dlms.Whole
}
