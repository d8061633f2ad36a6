package cosem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// Caches keeps what meters say of their objects over restarts: capture objects,
// scalers, units, how lists and selections work, and what Discover found. What
// is kept is opaque; it is a few hundred octets to some kilobytes, and no harm
// is done when it is lost.
type Caches interface {
	// Cache gives what was kept of the meter of that name and serial number; nil
	// is nothing.
	Cache(id meter.ID, serial string) []byte
	// SaveCache keeps it, at its leisure. It does not wait for the disk.
	SaveCache(id meter.ID, serial string, cache []byte)
}

const (
	// cacheVersion is that of the form. Others are no cache.
	cacheVersion = 1
	// keepAfter is when what did not change is kept anew, and keptFor how old it
	// may be to be believed after a start. It is then read again in the course of
	// a day, at another hour with each meter.
	keepAfter = 3 * 24 * time.Hour
	keptFor   = 7 * 24 * time.Hour
	// maxCache bounds what is kept of a meter, in octets.
	maxCache = 32 << 10
)

// A cache on flash, all numbers little endian:
//
//	 0  1  version
//	 1  4  hash of how the meter is spoken to
//	 5  8  when it was kept, milliseconds since 1970 UTC
//	13  1  flags: 1 clock was read, 2 tells no deviation, 4 lists are answered, 8 was explored
//	14  2  longest list, 0 for not learnt
//	16 16  ratios of current and voltage, as floats; 0 for none
//	32  2  n, and n times: class 2, code 6, attribute 1, scaler 1, unit 1
//	       2  n, and n times: profile 6, period in seconds 4, sort 1, selector 1,
//	          number of columns 2, and of each: class 2, code 6, attribute 1,
//	          index 2
//	       2  n, and n times: lane 1, every in seconds 4, profile 1, number of
//	          attributes 2, and of each: class 2, code 6, attribute 1
//	       4  CRC-32C of all before
const cacheHead = 5 + 8

// hash tells apart what changes what a meter says: another client sees other
// objects.
func (c *Config) hash() uint32 {
	return crc32.Checksum(fmt.Appendf(nil, "%d %d %t %+v", c.Client, c.Server, c.ShortNames, c.Quirks), crc32.MakeTable(crc32.Castagnoli))
}

// recall takes what was kept of the meter that answers.
func (m *Meter) recall() {
	if m.cfg.Caches == nil || m.cache.serial == "" {
		return
	}
	b := m.cfg.Caches.Cache(m.cfg.ID, m.cache.serial)
	c, kept, err := parseCache(b, m.cfg.hash())
	now := m.cfg.Now()
	age := time.Duration(now.Time-kept) * time.Millisecond
	if err != nil || age < 0 || age >= keptFor {
		return
	}
	// As if it had been read at some time in the last day.
	spread := time.Duration(crc32.ChecksumIEEE([]byte(m.cache.serial))) * staleAfter >> 32
	at := now
	at.Mono -= spread.Milliseconds()
	c.date(at)
	c.serial, c.opened, c.flash, c.flashAt = m.cache.serial, m.cache.opened, slices.Clone(b[cacheHead:]), kept
	m.cache = c
}

// date says when it was read.
func (c *cache) date(at meter.Stamp) {
	for a, k := range c.scales {
		k.at = at
		c.scales[a] = k
	}
	for p, k := range c.layouts {
		k.at = at
		c.layouts[p] = k
	}
	c.ratios.at, c.listMax.at = at, at
}

// remember has what is known of the meter kept, if it is not yet.
func (m *Meter) remember() {
	if m.cfg.Caches == nil || m.cache.serial == "" {
		return
	}
	stamp := m.cfg.Now()
	now := stamp.Time
	b := m.cache.append(nil, m.cfg.hash(), stamp)
	body := b[cacheHead : len(b)-crc32.Size]
	old := m.cache.flash
	if same := len(old) >= crc32.Size && slices.Equal(body, old[:len(old)-crc32.Size]); same && now-m.cache.flashAt < keepAfter.Milliseconds() {
		return
	}
	if len(b) > maxCache {
		return
	}
	m.cfg.Caches.SaveCache(m.cfg.ID, m.cache.serial, b)
	m.cache.flash, m.cache.flashAt = b[cacheHead:], now
}

// append gives the form on flash, without what was not looked at for long.
func (c *cache) append(b []byte, hash uint32, now meter.Stamp) []byte {
	le := binary.LittleEndian
	scales, layouts := usedKeys(c.scales, now, compareAttributes), usedKeys(c.layouts, now, compareCodes)
	b = le.AppendUint32(append(b, cacheVersion), hash)
	b = le.AppendUint64(b, uint64(now.Time))
	var flags byte
	for i, set := range []bool{c.clockRead, c.localTime, c.lists, c.explored} {
		if set {
			flags |= 1 << i
		}
	}
	b = le.AppendUint16(append(b, flags), uint16(min(c.listMax.value, math.MaxUint16)))
	b = le.AppendUint64(b, math.Float64bits(c.ratios.value.Current))
	b = le.AppendUint64(b, math.Float64bits(c.ratios.value.Voltage))
	b = le.AppendUint16(b, uint16(len(scales)))
	for _, a := range scales {
		s := c.scales[a].value
		b = append(appendAttribute(b, a), byte(s.Scaler), s.Unit)
	}
	b = le.AppendUint16(b, uint16(len(layouts)))
	for _, p := range layouts {
		l := c.layouts[p].value
		b = le.AppendUint32(append(b, p[:]...), uint32(l.Period/time.Second))
		b = le.AppendUint16(append(b, byte(l.Sort), byte(l.selector)), uint16(len(l.Columns)))
		for _, column := range l.Columns {
			b = le.AppendUint16(appendAttribute(b, column.Attribute), column.Index)
		}
	}
	b = le.AppendUint16(b, uint16(len(c.found)))
	for _, f := range c.found {
		b = le.AppendUint32(append(b, byte(f.Lane)), uint32(f.Every/time.Second))
		profile := byte(0)
		attributes := f.Channels
		if f.Profile != "" {
			profile, attributes = 1, []meter.Channel{f.Profile}
		}
		b = le.AppendUint16(append(b, profile), uint16(len(attributes)))
		for _, channel := range attributes {
			code, class, id, _ := channel.Attribute()
			b = appendAttribute(b, dlms.Attribute{Class: class, Code: code, ID: id})
		}
	}
	return le.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func appendAttribute(b []byte, a dlms.Attribute) []byte {
	return append(append(binary.LittleEndian.AppendUint16(b, a.Class), a.Code[:]...), byte(a.ID))
}

var errNoCache = errors.New("not a cache")

// parseCache takes what was kept apart, and gives when that was.
func parseCache(b []byte, hash uint32) (c cache, at int64, err error) {
	end := len(b) - crc32.Size
	if end < cacheHead || len(b) > maxCache || b[0] != cacheVersion ||
		binary.LittleEndian.Uint32(b[end:]) != crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli)) ||
		binary.LittleEndian.Uint32(b[1:]) != hash {
		return cache{}, 0, errNoCache
	}
	at = int64(binary.LittleEndian.Uint64(b[5:]))
	r := cacheReader{b: b[cacheHead:end]}
	flags := r.number(1)
	c.clockRead, c.localTime, c.lists, c.explored = flags&1 != 0, flags&2 != 0, flags&4 != 0, flags&8 != 0
	c.listMax.value = int(r.number(2))
	c.ratios.value = dlms.Ratios{Current: math.Float64frombits(r.number(8)), Voltage: math.Float64frombits(r.number(8))}
	if !isWhole(c.ratios.value.Current, c.ratios.value.Voltage) {
		c.ratios.value = dlms.Ratios{}
	}
	c.scales = map[dlms.Attribute]kept[dlms.ScalerUnit]{}
	for range r.count(11) {
		a := r.attribute()
		c.scales[a] = kept[dlms.ScalerUnit]{value: dlms.ScalerUnit{Scaler: int8(r.number(1)), Unit: uint8(r.number(1))}}
	}
	c.layouts = map[obis.Code]kept[*layout]{}
	for range r.count(14) {
		profile := r.code()
		period := time.Duration(r.number(4)) * time.Second
		sort, selector := dlms.SortMethod(r.number(1)), dlms.Selector(r.number(1))
		columns := make([]dlms.Column, r.count(11))
		for i := range columns {
			columns[i] = dlms.Column{Attribute: r.attribute(), Index: uint16(r.number(2))}
		}
		read := dlms.NewLayout(dlms.Attribute{Class: dlms.ClassProfileGeneric, Code: profile, ID: 2}, columns, period)
		read.Sort = sort
		if read.Clock < 0 || selector > dlms.Whole {
			return cache{}, 0, errNoCache
		}
		c.layouts[profile] = kept[*layout]{value: newLayout(read, selector)}
	}
	for range r.count(8) {
		c.found = append(c.found, r.found())
	}
	if r.short || len(r.b) > 0 {
		return cache{}, 0, errNoCache
	}
	return c, at, nil
}

// cacheReader takes numbers off the front. Behind the end they are 0.
type cacheReader struct {
	b     []byte
	short bool
}

func (r *cacheReader) number(octets int) (n uint64) {
	if len(r.b) < octets {
		r.b, r.short = nil, true
		return 0
	}
	for i := range octets {
		n |= uint64(r.b[i]) << (8 * i)
	}
	r.b = r.b[octets:]
	return n
}

// count takes how many things follow that have at least so many octets each.
func (r *cacheReader) count(octets int) int {
	n := int(r.number(2))
	if n*octets > len(r.b) {
		r.b, r.short = nil, true
		return 0
	}
	return n
}

func (r *cacheReader) code() (c obis.Code) {
	for i := range c {
		c[i] = byte(r.number(1))
	}
	return c
}

func (r *cacheReader) attribute() dlms.Attribute {
	class := uint16(r.number(2))
	return dlms.Attribute{Class: class, Code: r.code(), ID: int8(r.number(1))}
}

func (r *cacheReader) found() (f Found) {
	f.Lane, f.Every = meter.Lane(r.number(1)), time.Duration(r.number(4))*time.Second
	isProfile := r.number(1) == 1
	for range r.count(9) {
		a := r.attribute()
		c := meter.ChannelOf(a.Code, a.Class, a.ID)
		if isProfile {
			f.Profile = c
		} else {
			f.Channels = append(f.Channels, c)
		}
	}
	if f.Name = foundName(&f); !f.Lane.Valid() || f.Every <= 0 || f.Profile == "" && len(f.Channels) == 0 {
		r.short = true
	}
	return f
}

// usedKeys gives, in order, the keys of what was read lately.
func usedKeys[K comparable, V any](m map[K]kept[V], now meter.Stamp, compare func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for k, v := range m {
		if v.at.Boot == now.Boot && now.Mono-v.at.Mono < keepAfter.Milliseconds() {
			keys = append(keys, k)
		}
	}
	sortby.Stable(keys, compare)
	return keys
}

func compareCodes(a, b obis.Code) int { return slices.Compare(a[:], b[:]) }

func compareAttributes(a, b dlms.Attribute) int {
	if d := int(a.Class) - int(b.Class); d != 0 {
		return d
	}
	if d := compareCodes(a.Code, b.Code); d != 0 {
		return d
	}
	return int(a.ID) - int(b.ID)
}
