package main

import (
	"bufio"
	"fmt"
	"io"
	"time"

	"gridgate/internal/meter"
)

// rowPrinter prints rows as a table for people or as a JSON object a line.
type rowPrinter struct {
	out    *bufio.Writer
	json   bool
	headed bool
}

func newRowPrinter(w io.Writer, asJSON bool) *rowPrinter {
	return &rowPrinter{out: bufio.NewWriter(w), json: asJSON}
}

func (p *rowPrinter) print(r meter.Row) {
	if p.json {
		b := append(r.AppendJSON(p.out.AvailableBuffer()), '\n')
		_, _ = p.out.Write(b) // flush tells
		return
	}
	const format = "%-12s  %-14s  %-22s  %-20s  %25s  %-6s %s\n"
	if !p.headed {
		p.headed = true
		fmt.Fprintf(p.out, format, "METER", "SERIAL", "CHANNEL", "TIME", "VALUE", "UNIT", "QUALITY")
	}
	fmt.Fprintf(p.out, format, r.Meter, r.Serial, r.Channel.Short(), r.Stamp.UTC().Format(time.RFC3339), r.Value, r.Unit, r.Quality)
}

func (p *rowPrinter) flush() error { return p.out.Flush() }
