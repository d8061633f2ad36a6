package axdr

import "encoding/binary"

// AppendBinary appends v to b in its canonical form. It fails with a
// *SyntaxError on what no decoder would take: an unknown tag, a number that
// does not fit its type, octets that are not as many as the type has, nesting
// over MaxDepth. The offset is from where v starts.
func (v Value) AppendBinary(b []byte) ([]byte, error) {
	return v.append(b, len(b), 0)
}

// AppendLength appends a length or count in its shortest form.
func AppendLength(b []byte, n int) []byte {
	switch {
	case n < 0x80:
		return append(b, byte(n))
	case n < 1<<8:
		return append(b, 0x81, byte(n))
	case n < 1<<16:
		return append(b, 0x82, byte(n>>8), byte(n))
	default:
		return append(b, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
}

func (v Value) append(b []byte, start, depth int) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, &SyntaxError{Offset: len(b) - start, Tag: v.Tag, Err: err}
	}
	switch v.Tag.layout().form {
	case nested:
		if depth == MaxDepth {
			return fail(ErrDepth)
		}
		b = AppendLength(append(b, byte(v.Tag)), len(v.Items))
		for _, item := range v.Items {
			var err error
			if b, err = item.append(b, start, depth+1); err != nil {
				return nil, err
			}
		}
		return b, nil
	case compact:
		if depth == MaxDepth {
			return fail(ErrDepth)
		}
		out, err := v.appendCompact(append(b, byte(v.Tag)), depth)
		if err != nil {
			return fail(err)
		}
		return out, nil
	default:
		out, err := v.appendLeaf(append(b, byte(v.Tag)))
		if err != nil {
			return fail(err)
		}
		return out, nil
	}
}

// appendLeaf appends the contents of a v of no elements.
func (v Value) appendLeaf(b []byte) ([]byte, error) {
	l := v.Tag.layout()
	switch l.form {
	case number:
		if !v.fits(l.width) {
			return nil, ErrLength
		}
		return appendNumber(b, v.Num, l.width), nil
	case fixed:
		if len(v.Str) != l.width {
			return nil, ErrLength
		}
		return append(b, v.Str...), nil
	case counted:
		return append(AppendLength(b, len(v.Str)), v.Str...), nil
	case bitCount:
		if v.Num > 1<<31-1 || uint64(len(v.Str)) != (v.Num+7)/8 {
			return nil, ErrLength
		}
		return append(AppendLength(b, int(v.Num)), v.Str...), nil
	case nested, compact, unknown:
	}
	return nil, ErrTag
}

// fits says whether the number of v is one that width octets can carry.
func (v Value) fits(width int) bool {
	if v.Tag == TagBoolean {
		return v.Num <= 1
	}
	shift := 64 - 8*width
	if v.isSigned() {
		return int64(v.Num<<shift)>>shift == int64(v.Num)
	}
	return v.Num<<shift>>shift == v.Num
}

func appendNumber(b []byte, n uint64, width int) []byte {
	switch width {
	case 1:
		return append(b, byte(n))
	case 2:
		return binary.BigEndian.AppendUint16(b, uint16(n))
	case 4:
		return binary.BigEndian.AppendUint32(b, uint32(n))
	default:
		return binary.BigEndian.AppendUint64(b, n)
	}
}
