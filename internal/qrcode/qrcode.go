// Package qrcode draws QR codes (ISO/IEC 18004) for terminals and for labels.
package qrcode

import (
	"fmt"
	"strings"

	"rsc.io/qr/coding"
)

// Code is a square of modules.
type Code struct{ code *coding.Code }

// quiet is how many light modules stand around a code (clause 6.3.8).
const quiet = 4

// Encode makes the smallest code that holds text, with error correction M: 15 % of
// it may be scratched. The error says that the text is too long.
func Encode(text string) (*Code, error) {
	enc := coding.String(text)
	for v := coding.Version(coding.MinVersion); v <= coding.MaxVersion; v++ {
		if enc.Bits(v) > v.DataBytes(coding.M)*8 {
			continue
		}
		plan, err := coding.NewPlan(v, coding.M, 0)
		if err != nil {
			return nil, err
		}
		code, err := plan.Encode(enc)
		if err != nil {
			return nil, err
		}
		return &Code{code}, nil
	}
	return nil, fmt.Errorf("%d octets are too many for a QR code", len(text))
}

// Size is the number of modules on a side, the quiet zone included.
func (c *Code) Size() int { return c.code.Size + 2*quiet }

// Dark says whether a module is dark; x and y count from 0, the quiet zone included.
func (c *Code) Dark(x, y int) bool { return c.code.Black(x-quiet, y-quiet) }

// Terminal gives the code in half blocks, two rows of modules a line. Blocks are the
// light modules: it is right on a dark terminal, and with white on black, which
// coloured asks for, on every one.
func (c *Code) Terminal(coloured bool) string {
	var b strings.Builder
	for y := 0; y < c.Size(); y += 2 {
		if coloured {
			b.WriteString("\x1b[97;40m")
		}
		for x := range c.Size() {
			upper, lower := !c.Dark(x, y), y+1 < c.Size() && !c.Dark(x, y+1)
			switch {
			case upper && lower:
				b.WriteString("█")
			case upper:
				b.WriteString("▀")
			case lower:
				b.WriteString("▄")
			default:
				b.WriteByte(' ')
			}
		}
		if coloured {
			b.WriteString("\x1b[0m")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// SVG gives the code as a picture of that many millimetres, with lines of text below
// it. The text may hold what XML has marks for.
func (c *Code) SVG(millimetres int, below ...string) string {
	const line = 3 // height of a line, in modules
	size := c.Size()
	height := size + line*len(below)
	if len(below) > 0 {
		height += line / 2
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="%dmm" height="%dmm" viewBox="0 0 %d %d">
<rect width="100%%" height="100%%" fill="#fff"/>
<path fill="#000" shape-rendering="crispEdges" d="`, millimetres, (millimetres*height+size-1)/size, size, height)
	for y := range size {
		for x := 0; x < size; x++ {
			if !c.Dark(x, y) {
				continue
			}
			run := 1
			for c.Dark(x+run, y) {
				run++
			}
			fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x, y, run, run)
			x += run
		}
	}
	b.WriteString("\"/>\n")
	for i, text := range below {
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-family="monospace" font-size="2" fill="#000">%s</text>`+"\n", quiet, size+line*i+1,
			strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text))
	}
	b.WriteString("</svg>\n")
	return b.String()
}
