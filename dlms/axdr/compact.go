package axdr

// A compact-array (IEC 62056-5-3, 9.5, Data; IEC 62056-6-2, 4.1.5) is
//
//	13  type description  length  contents
//
// and a type description is
//
//	tag                          a type without elements
//	01  count 2  description     an array of so many elements
//	02  count    descriptions    a structure
//
// Contents are those of the elements, one after the other, without tags, and
// without counts where the description has them.

// Describe gives the type description of an element of a compact-array: that
// of v. An array must have an element to show its type. Types that no
// compact-array holds are ErrTag.
func Describe(v Value) (string, error) {
	b, err := v.describe(nil, 0)
	return string(b), err
}

func (v Value) describe(b []byte, depth int) ([]byte, error) {
	b = append(b, byte(v.Tag))
	switch v.Tag.layout().form {
	case nested:
	case compact, unknown:
		return nil, ErrTag
	default:
		return b, nil
	}
	var err error
	switch {
	case depth == MaxDepth:
		return nil, ErrDepth
	case v.Tag == TagArray && (len(v.Items) == 0 || len(v.Items) > 1<<16-1):
		return nil, ErrLength
	case v.Tag == TagArray:
		return v.Items[0].describe(append(b, byte(len(v.Items)>>8), byte(len(v.Items))), depth+1)
	}
	b = AppendLength(b, len(v.Items))
	for _, item := range v.Items {
		if b, err = item.describe(b, depth+1); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// skipType gives the type description that b starts with, and what follows.
func skipType(b []byte, depth int) (description, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, ErrTruncated
	}
	rest = b[1:]
	switch t := Tag(b[0]); {
	case t.layout().form == unknown || t == TagCompactArray:
		return nil, nil, ErrTag
	case t.layout().form != nested:
	case depth == MaxDepth:
		return nil, nil, ErrDepth
	case t == TagArray:
		if len(rest) < 2 {
			return nil, nil, ErrTruncated
		}
		if _, rest, err = skipType(rest[2:], depth+1); err != nil {
			return nil, nil, err
		}
	default:
		count, n := ParseLength(rest)
		if n == 0 || count > len(rest)-n {
			return nil, nil, ErrTruncated
		}
		rest = rest[n:]
		for range count {
			if _, rest, err = skipType(rest, depth+1); err != nil {
				return nil, nil, err
			}
		}
	}
	return b[:len(b)-len(rest)], rest, nil
}

// compactArray decodes the description and contents of a compact-array.
func (d *decoder) compactArray(v *Value, depth int) error {
	description, rest, err := skipType(d.b[d.at:], depth+1)
	if err != nil {
		return err
	}
	d.at = len(d.b) - len(rest)
	length, err := d.length()
	if err != nil {
		return err
	}
	if length > len(d.b)-d.at {
		return ErrTruncated
	}
	v.Str = string(description)
	contents := decoder{b: d.b[d.at : d.at+length], room: d.room}
	d.at += length
	// Once to count the elements, so that they are given no more room than
	// they need, and once to decode them.
	count := 0
	for contents.at < length {
		at := contents.at
		if _, err := contents.element(nil, description); err != nil {
			return err
		}
		if contents.at == at { // of no octets: there is no end to them
			return ErrLength
		}
		count++
	}
	if count == 0 {
		return nil
	}
	d.room, contents.at = contents.room, 0
	v.Items = make([]Value, count)
	for i := range v.Items {
		if _, err := contents.element(&v.Items[i], description); err != nil {
			return err
		}
	}
	return nil
}

// element decodes an element of the type that description starts with, and
// gives the rest of the description. Without v, it only passes over the
// element, and takes its room.
func (d *decoder) element(v *Value, description []byte) (rest []byte, err error) {
	tag, rest := Tag(description[0]), description[1:]
	if v == nil {
		if d.room <= 0 {
			return nil, ErrRoom
		}
		d.room--
	} else {
		v.Tag = tag
	}
	var count int
	switch tag {
	case TagArray:
		count, rest = int(rest[0])<<8|int(rest[1]), rest[2:]
	case TagStructure:
		var n int
		count, n = ParseLength(rest)
		rest = rest[n:]
	default:
		if v == nil {
			return rest, d.skip(tag)
		}
		return rest, d.leaf(v)
	}
	if v != nil && count > 0 {
		v.Items = make([]Value, count)
	}
	of := rest
	for i := range count {
		var item *Value
		if v != nil {
			item = &v.Items[i]
		}
		if rest, err = d.element(item, of); err != nil {
			return nil, err
		}
		if tag == TagStructure {
			of = rest
		}
	}
	if tag == TagArray && count == 0 {
		if _, rest, err = skipType(of, 0); err != nil {
			return nil, err
		}
		// Passing over its type again and again takes time, not memory; it is
		// held down the same way.
		if v == nil {
			d.room -= len(of) - len(rest)
		}
	}
	return rest, nil
}

// skip passes over the contents of a type without elements.
func (d *decoder) skip(t Tag) error {
	l := t.layout()
	n := l.width
	if l.form == counted || l.form == bitCount {
		var err error
		if n, err = d.length(); err != nil {
			return err
		}
		if l.form == bitCount {
			n = n/8 + (n%8+7)/8
		}
	}
	if len(d.b)-d.at < n {
		return ErrTruncated
	}
	d.at += n
	return nil
}

// appendCompact appends the description of a compact-array and its contents.
func (v Value) appendCompact(b []byte, depth int) ([]byte, error) {
	description, rest, err := skipType([]byte(v.Str), depth+1)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, ErrLength
	}
	b = append(b, description...)
	start := len(b)
	for i := range v.Items {
		at := len(b)
		if b, _, err = v.Items[i].appendElement(b, description); err != nil {
			return nil, err
		}
		if len(b) == at { // of no octets: nobody could count them
			return nil, ErrLength
		}
	}
	// The length goes before the contents, which are there already.
	var head [5]byte
	length := AppendLength(head[:0], len(b)-start)
	b = append(b, length...)
	copy(b[start+len(length):], b[start:])
	copy(b[start:], length)
	return b, nil
}

// appendElement appends the contents of v, which must be of the type that
// description starts with, and gives the rest of the description.
func (v Value) appendElement(b, description []byte) (out, rest []byte, err error) {
	tag, rest := Tag(description[0]), description[1:]
	if v.Tag != tag {
		return nil, nil, ErrType
	}
	switch tag {
	case TagArray:
		if len(v.Items) != int(rest[0])<<8|int(rest[1]) {
			return nil, nil, ErrType
		}
		rest = rest[2:]
		of := rest
		for i := range v.Items {
			if b, _, err = v.Items[i].appendElement(b, of); err != nil {
				return nil, nil, err
			}
		}
		_, rest, err = skipType(of, 0)
		return b, rest, err
	case TagStructure:
		count, n := ParseLength(rest)
		if len(v.Items) != count {
			return nil, nil, ErrType
		}
		rest = rest[n:]
		for i := range v.Items {
			if b, rest, err = v.Items[i].appendElement(b, rest); err != nil {
				return nil, nil, err
			}
		}
		return b, rest, nil
	default:
		b, err = v.appendLeaf(b)
		return b, rest, err
	}
}
