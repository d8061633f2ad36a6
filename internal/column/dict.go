package column

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"gridgate/internal/meter"
	"gridgate/internal/wire"
)

// The limits of a dictionary.
const (
	MaxDict = 1 << 16 // meters, and channels
	maxName = 255     // bytes of a name
)

// Meter is a meter as rows name it: the same meter with another serial number
// is another one.
type Meter struct {
	ID     meter.ID
	Serial string
}

// Channel is a channel as rows of one shape name it: the same channel with
// another kind, scale or unit is another one.
type Channel struct {
	Name  meter.Channel
	Kind  meter.Kind
	Scale int8
	Unit  meter.Unit
}

// Dict numbers meters and channels from 0 on, in the order in which they were
// added; a number never changes its meaning. The zero value is an empty
// dictionary. A Dict is not safe for concurrent use while it is added to.
//
//	Dict     1 meters (repeated Meter) 2 channels (repeated Channel)
//	Meter    1 id 2 serial
//	Channel  1 name 2 kind 3 scale (zig-zag) 4 unit
type Dict struct {
	meters   []Meter
	channels []Channel
	// The numbers by name; made when first asked for, so that reading a body
	// needs no maps.
	meterNum   map[Meter]uint32
	channelNum map[Channel]uint32
}

// NewDict gives an empty dictionary.
func NewDict() *Dict { return &Dict{} }

// Meters gives the meters by number. The caller must not change them.
func (d *Dict) Meters() []Meter { return d.meters }

// Channels gives the channels by number. The caller must not change them.
func (d *Dict) Channels() []Channel { return d.channels }

// Clone gives a dictionary that may be added to apart from d.
func (d *Dict) Clone() *Dict {
	return &Dict{
		meters:   append([]Meter(nil), d.meters...),
		channels: append([]Channel(nil), d.channels...),
	}
}

// Snapshot gives the dictionary as it is now, in the same memory.
func (d *Dict) Snapshot() *Dict {
	return &Dict{meters: slices.Clip(d.meters), channels: slices.Clip(d.channels)}
}

// Add adds what rows name and d does not have. It says whether anything was
// added. On an error rows up to the one at fault are added.
func (d *Dict) Add(rows []meter.Row) (bool, error) {
	before := len(d.meters) + len(d.channels)
	var m, c uint32
	var err error
	for i := range rows {
		// Rows come meter by meter, and their channels in turn: a look at what is
		// likely spares a search.
		if i == 0 || d.meters[m] != meterOf(&rows[i]) {
			if m, err = d.meter(meterOf(&rows[i]), true); err != nil {
				return true, err
			}
		}
		if next := c + 1; i > 0 && int(next) < len(d.channels) && d.channels[next] == channelOf(&rows[i]) {
			c = next
		} else if c, err = d.channel(channelOf(&rows[i]), true); err != nil {
			return true, err
		}
	}
	return len(d.meters)+len(d.channels) > before, nil
}

func meterOf(r *meter.Row) Meter { return Meter{r.Meter, r.Serial} }

func channelOf(r *meter.Row) Channel {
	return Channel{r.Channel, r.Value.Kind, r.Value.Scale, r.Unit}
}

// meter gives the number of m, and adds it when it has none and grow is set.
func (d *Dict) meter(m Meter, grow bool) (uint32, error) {
	if d.meterNum == nil {
		d.index()
	}
	if n, ok := d.meterNum[m]; ok {
		return n, nil
	}
	if !grow {
		return 0, fmt.Errorf("meter %q with serial %q: %w", m.ID, m.Serial, ErrNotInDict)
	}
	if len(m.ID) > maxName || len(m.Serial) > maxName || !utf8.ValidString(string(m.ID)) {
		return 0, fmt.Errorf("meter %.40q with serial %.40q: want text of at most %d bytes", m.ID, m.Serial, maxName)
	}
	n := uint32(len(d.meters))
	if n >= MaxDict {
		return 0, fmt.Errorf("meter %q: %w: it has %d meters", m.ID, ErrDictFull, n)
	}
	d.meters = append(d.meters, m)
	d.meterNum[m] = n
	return n, nil
}

// channel gives the number of c, and adds it when it has none and grow is set.
func (d *Dict) channel(c Channel, grow bool) (uint32, error) {
	if d.channelNum == nil {
		d.index()
	}
	if n, ok := d.channelNum[c]; ok {
		return n, nil
	}
	if !grow {
		return 0, fmt.Errorf("channel %q of kind %d, scale %d, unit %d: %w", c.Name, c.Kind, c.Scale, c.Unit, ErrNotInDict)
	}
	if !c.Kind.Valid() {
		return 0, fmt.Errorf("channel %q: no such kind of value: %d", c.Name, c.Kind)
	}
	if len(c.Name) > maxName || !utf8.ValidString(string(c.Name)) {
		return 0, fmt.Errorf("channel %.40q: want text of at most %d bytes", c.Name, maxName)
	}
	n := uint32(len(d.channels))
	if n >= MaxDict {
		return 0, fmt.Errorf("channel %q: %w: it has %d channels", c.Name, ErrDictFull, n)
	}
	d.channels = append(d.channels, c)
	d.channelNum[c] = n
	return n, nil
}

func (d *Dict) index() {
	d.meterNum = make(map[Meter]uint32, len(d.meters))
	for i := len(d.meters) - 1; i >= 0; i-- {
		d.meterNum[d.meters[i]] = uint32(i)
	}
	d.channelNum = make(map[Channel]uint32, len(d.channels))
	for i := len(d.channels) - 1; i >= 0; i-- {
		d.channelNum[d.channels[i]] = uint32(i)
	}
}

// AppendBinary appends the dictionary's message to b. It never fails.
func (d *Dict) AppendBinary(b []byte) ([]byte, error) { return d.append(b), nil }

func (d *Dict) append(b []byte) []byte {
	var one []byte
	for _, m := range d.meters {
		one = wire.AppendBytes(one[:0], 1, m.ID)
		one = wire.AppendBytes(one, 2, m.Serial)
		b = wire.AppendMessage(b, 1, one)
	}
	for _, c := range d.channels {
		one = wire.AppendBytes(one[:0], 1, c.Name)
		one = wire.AppendUint(one, 2, uint64(c.Kind))
		one = wire.AppendSint(one, 3, int64(c.Scale))
		one = wire.AppendUint(one, 4, uint64(c.Unit))
		b = wire.AppendMessage(b, 2, one)
	}
	return b
}

// AppendPacked appends the dictionary deflated, when that is smaller, as the
// fields 1, or 2 and 3, of a message that may have others, from 5 on.
func (d *Dict) AppendPacked(b []byte) []byte {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	return e.appendPacked(b, d.append(nil))
}

// ParsePackedDict reads what AppendPacked appended. Other fields are skipped.
func ParsePackedDict(b []byte) (*Dict, error) {
	p, err := parsePacked(b)
	var content []byte
	if err == nil {
		content, err = (&inflater{}).content(&p)
	}
	if err != nil {
		return nil, fmt.Errorf("dictionary: %w: %w", ErrCorrupt, err)
	}
	return ParseDict(content)
}

// ParseDict reads a dictionary. Fields that it does not know are skipped.
func ParseDict(b []byte) (*Dict, error) {
	d := NewDict()
	for rest := b; len(rest) > 0; {
		f, after, err := wire.Next(rest)
		if err == nil {
			err = d.field(f)
		}
		if err != nil {
			return nil, fmt.Errorf("dictionary: %w: %w", ErrCorrupt, err)
		}
		rest = after
	}
	return d, nil
}

func (d *Dict) field(f wire.Field) error {
	switch f.Num {
	case 1:
		m, err := parseMeter(f)
		if err != nil {
			return fmt.Errorf("meter %d: %w", len(d.meters), err)
		}
		if len(d.meters) >= MaxDict {
			return fmt.Errorf("more than %d meters", MaxDict)
		}
		d.meters = append(d.meters, m)
	case 2:
		c, err := parseChannel(f)
		if err != nil {
			return fmt.Errorf("channel %d: %w", len(d.channels), err)
		}
		if len(d.channels) >= MaxDict {
			return fmt.Errorf("more than %d channels", MaxDict)
		}
		d.channels = append(d.channels, c)
	}
	return nil
}

func parseMeter(f wire.Field) (Meter, error) {
	var m Meter
	err := f.Want(wire.Bytes)
	for rest := f.Data; len(rest) > 0 && err == nil; {
		var in wire.Field
		if in, rest, err = wire.Next(rest); err != nil {
			break
		}
		var s string
		switch in.Num {
		case 1:
			s, err = in.Text(maxName)
			m.ID = meter.ID(s)
		case 2:
			m.Serial, err = in.Text(maxName)
		}
	}
	if err == nil && !utf8.ValidString(string(m.ID)) {
		err = fmt.Errorf("id %q is not UTF-8", m.ID)
	}
	return m, err
}

func parseChannel(f wire.Field) (Channel, error) {
	var c Channel
	err := f.Want(wire.Bytes)
	for rest := f.Data; len(rest) > 0 && err == nil; {
		var in wire.Field
		if in, rest, err = wire.Next(rest); err != nil {
			break
		}
		var s string
		var u uint64
		switch in.Num {
		case 1:
			s, err = in.Text(maxName)
			c.Name = meter.Channel(s)
		case 2:
			u, err = in.Uint(math.MaxUint8)
			c.Kind = meter.Kind(u)
		case 3:
			u, err = in.Uint(math.MaxUint8) // zig-zag of -128 to 127
			c.Scale = int8(wire.Unzigzag(u))
		case 4:
			u, err = in.Uint(math.MaxUint8)
			c.Unit = meter.Unit(u)
		}
	}
	if err == nil && !utf8.ValidString(string(c.Name)) {
		err = fmt.Errorf("name %q is not UTF-8", c.Name)
	}
	if err == nil && !c.Kind.Valid() {
		err = fmt.Errorf("no such kind of value: %d", c.Kind)
	}
	return c, err
}
