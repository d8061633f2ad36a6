package axdr

import "encoding/binary"

// MaxValues is how many elements Parse takes. It holds a value to about 13 MB,
// and three octets for each element of what is 600 kB long: meters send more.
const MaxValues = 200_000

// Parse decodes the Data that b starts with and says how many octets it took;
// what follows is not looked at. The value shares no memory with b, and takes
// at most 64 times the octets of b and 64 KiB; it has at most MaxValues
// elements. An error is a *SyntaxError.
func Parse(b []byte) (v Value, n int, err error) {
	v, n, _, err = ParseSome(b, MaxValues)
	return v, n, err
}

// ParseSome is Parse for one of several Data that share a bound: it takes at
// most so many elements, all that are within one another, and says how many
// there were.
func ParseSome(b []byte, most int) (v Value, n, elements int, err error) {
	room := min(len(b)+extraRoom, most)
	d := decoder{b: b, room: room}
	if err := d.value(&v, 0); err != nil {
		return Value{}, 0, 0, err
	}
	return v, d.at, room - d.room, nil
}

// ParseLength decodes a length or count that b starts with and says how many
// octets it took; 0 octets mean that b is cut short or the length is over 2^31-1.
func ParseLength(b []byte) (length, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	if b[0] < 0x80 {
		return int(b[0]), 1
	}
	octets := int(b[0] & 0x7F)
	if octets == 0 || octets > 4 || len(b) < 1+octets {
		return 0, 0
	}
	var v uint64
	for _, c := range b[1 : 1+octets] {
		v = v<<8 | uint64(c)
	}
	if v > 1<<31-1 {
		return 0, 0
	}
	return int(v), 1 + octets
}

// extraRoom is how many elements there may be over the octets that there are:
// a structure in a compact-array is an element and takes no octet.
const extraRoom = 1000

type decoder struct {
	b  []byte
	at int
	// room is how many elements there may still be: each but those of compact
	// arrays needs an octet at least, so that counts cannot claim more memory
	// than was sent.
	room int
}

func (d *decoder) value(v *Value, depth int) error {
	start := d.at
	if start >= len(d.b) {
		return &SyntaxError{Offset: start, Err: ErrTruncated}
	}
	v.Tag = Tag(d.b[start])
	d.at++
	var err error
	switch v.Tag.layout().form {
	case nested:
		if depth == MaxDepth {
			err = ErrDepth
			break
		}
		var count int
		if count, err = d.length(); err != nil {
			break
		}
		if count > len(d.b)-d.at {
			err = ErrTruncated
			break
		}
		if count > d.room {
			err = ErrRoom
			break
		}
		d.room -= count
		if count > 0 {
			v.Items = make([]Value, count)
		}
		for i := range v.Items {
			if err := d.value(&v.Items[i], depth+1); err != nil {
				return err // it says where already
			}
		}
	case compact:
		if depth == MaxDepth {
			err = ErrDepth
			break
		}
		err = d.compactArray(v, depth)
	default:
		err = d.leaf(v)
	}
	if err != nil {
		return &SyntaxError{Offset: start, Tag: v.Tag, Err: err}
	}
	return nil
}

// leaf decodes the contents of a v of no elements, whose tag is set.
func (d *decoder) leaf(v *Value) error {
	l := v.Tag.layout()
	switch l.form {
	case number:
		return d.number(v, l.width)
	case fixed:
		return d.octets(v, l.width)
	case counted, bitCount:
		return d.counted(v, l.form == bitCount)
	case nested, compact, unknown:
	}
	return ErrTag
}

func (d *decoder) number(v *Value, width int) error {
	if len(d.b)-d.at < width {
		return ErrTruncated
	}
	b := d.b[d.at : d.at+width]
	d.at += width
	switch width {
	case 1:
		v.Num = uint64(b[0])
	case 2:
		v.Num = uint64(binary.BigEndian.Uint16(b))
	case 4:
		v.Num = uint64(binary.BigEndian.Uint32(b))
	default:
		v.Num = binary.BigEndian.Uint64(b)
	}
	if v.isSigned() {
		shift := 64 - 8*width
		v.Num = uint64(int64(v.Num<<shift) >> shift)
	}
	if v.Tag == TagBoolean && v.Num != 0 {
		v.Num = 1
	}
	return nil
}

func (d *decoder) octets(v *Value, n int) error {
	if len(d.b)-d.at < n {
		return ErrTruncated
	}
	v.Str = string(d.b[d.at : d.at+n])
	d.at += n
	return nil
}

func (d *decoder) counted(v *Value, bits bool) error {
	n, err := d.length()
	if err != nil {
		return err
	}
	if bits {
		v.Num = uint64(n)
		n = n/8 + (n%8+7)/8
	}
	return d.octets(v, n)
}

func (d *decoder) length() (int, error) {
	length, n := ParseLength(d.b[d.at:])
	if n == 0 {
		if rest := d.b[d.at:]; len(rest) > 0 && rest[0] >= 0x80 && len(rest) > int(rest[0]&0x7F) {
			return 0, ErrLength
		}
		return 0, ErrTruncated
	}
	d.at += n
	return length, nil
}
