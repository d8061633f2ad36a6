package regexp

import "strings"

// compiler makes programs. Steps in them go to others by how far away they are,
// so that programs can be put together.
type compiler struct {
	rest   string // of the pattern
	groups int
}

func (c *compiler) take(prefix string) (ok bool) {
	c.rest, ok = strings.CutPrefix(c.rest, prefix)
	return ok
}

func (c *compiler) octet() byte {
	if c.rest == "" {
		panic("regexp: the pattern ends early")
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b
}

// alternatives is a|b|c.
func (c *compiler) alternatives() []step {
	p := c.sequence()
	if !c.take("|") {
		return p
	}
	q := c.alternatives()
	return join([]step{{kind: fork, x: 1, y: len(p) + 2}}, p, jump(len(q)+1), q)
}

func (c *compiler) sequence() (p []step) {
	for c.rest != "" && c.rest[0] != '|' && c.rest[0] != ')' {
		p = append(p, c.repeated()...)
	}
	return p
}

// repeated is one thing, and how often.
func (c *compiler) repeated() []step {
	p := c.single()
	n := len(p)
	optional := join([]step{{kind: fork, x: 1, y: n + 1}}, p)
	switch {
	case c.take("?"):
		return optional
	case c.take("+"):
		return join(p, []step{{kind: fork, x: -n, y: 1}})
	case c.take("*"):
		return join([]step{{kind: fork, x: 1, y: n + 2}}, p, jump(-n-1))
	case c.take("{"):
		from := int(c.octet() - '0')
		to := from
		if c.take(",") {
			to = int(c.octet() - '0')
		}
		if from > to || to > 9 || !c.take("}") {
			panic("regexp: only {DIGIT} and {DIGIT,DIGIT} are known")
		}
		var all []step
		for i := range to {
			if i < from {
				all = append(all, p...)
			} else {
				all = append(all, optional...)
			}
		}
		return all
	}
	return p
}

func (c *compiler) single() []step {
	s := step{kind: one}
	switch b := c.octet(); b {
	case '^':
		s.kind = start
	case '$':
		s.kind = end
	case '.':
		s.add('\n', '\n')
		s.invert()
	case '(':
		return c.group()
	case '[':
		inverted := c.take("^")
		for first := true; first || !c.take("]"); first = false {
			from := c.literal(c.octet())
			to := from
			if len(c.rest) > 1 && c.rest[0] == '-' && c.rest[1] != ']' {
				c.octet()
				to = c.literal(c.octet())
			}
			s.add(from, to)
		}
		if inverted {
			s.invert()
		}
	case '*', '+', '?', '{':
		panic("regexp: nothing is before the " + string(b))
	default:
		if b < 0x80 {
			b = c.literal(b)
		} else if c.rest != "" && strings.IndexByte("*+?{", c.rest[0]) >= 0 {
			panic("regexp: only ASCII may be repeated")
		}
		s.add(b, b)
	}
	return []step{s}
}

func (c *compiler) group() []step {
	counts, n := !c.take("?:"), c.groups
	if counts {
		c.groups++
	}
	p := c.alternatives()
	if c.octet() != ')' {
		panic("regexp: a group does not end")
	}
	if !counts {
		return p
	}
	return join([]step{{kind: save, x: 2 * n}}, p, []step{{kind: save, x: 2*n + 1}})
}

// literal is b, or what b escapes: no letters, for these are classes.
func (c *compiler) literal(b byte) byte {
	if b >= 0x80 {
		panic("regexp: only ASCII may be in a set")
	}
	if b != '\\' {
		return b
	}
	b = c.octet()
	if b >= 0x80 || b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z' {
		panic("regexp: not known: \\" + string(b))
	}
	return b
}

func jump(by int) []step { return []step{{kind: fork, x: by, y: by}} }

func join(parts ...[]step) []step {
	var all []step
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
