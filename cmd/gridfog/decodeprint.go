package main

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"time"

	"gridgate/cmd/gridfog/track"
	"gridgate/internal/meter"
)

// printer prints rows in one of the forms of decode.
type printer interface {
	row(r *track.Reading) error
	// flush hands on what was printed.
	flush() error
}

// jsonPrinter prints a JSON object a line.
type jsonPrinter struct{ out *bufio.Writer }

func (p jsonPrinter) row(r *track.Reading) error {
	_, err := p.out.Write(append(r.AppendJSON(p.out.AvailableBuffer()), '\n'))
	return err
}

func (p jsonPrinter) flush() error { return p.out.Flush() }

// csvPrinter prints RFC 4180, with all digits; a heading comes first. The
// columns are those of `gridgate buffer query -csv`, and whose they are.
type csvPrinter struct {
	out     *csv.Writer
	started bool
}

func newCSVPrinter(out io.Writer) *csvPrinter {
	p := &csvPrinter{out: csv.NewWriter(out)}
	p.out.UseCRLF = true
	return p
}

func (p *csvPrinter) row(r *track.Reading) error {
	if !p.started {
		p.started = true
		if err := p.out.Write([]string{
			"lane", "sequence", "meter", "serial", "channel", "time", "value", "unit", "quality", "period", "status", "site", "gateway",
		}); err != nil {
			return err
		}
	}
	row := &r.Row
	period, status := "", ""
	if row.Period > 0 {
		period = strconv.FormatUint(uint64(row.Period), 10)
	}
	if row.HasStatus {
		status = strconv.FormatUint(row.Status, 10)
	}
	return p.out.Write([]string{
		r.Lane.String(), strconv.FormatUint(r.Sequence, 10), string(row.Meter), row.Serial, string(row.Channel),
		row.Stamp.UTC().Format(meter.TimeFormat), row.Value.String(), row.Unit.String(), row.Quality.String(), period, status, r.Site, r.Gateway,
	})
}

func (p *csvPrinter) flush() error {
	p.out.Flush()
	return p.out.Error()
}

// tablePrinter prints columns for people; what would move the cursor is taken
// out.
type tablePrinter struct {
	out     *bufio.Writer
	started bool
}

const tableFormat = "%-8s %10s  %-20s %-16s %-16s %-22s %-20s %18s %-5s %s\n"

func (p *tablePrinter) row(r *track.Reading) error {
	if !p.started {
		p.started = true
		fmt.Fprintf(p.out, tableFormat, "LANE", "SEQUENCE", "GATEWAY", "METER", "SERIAL", "CHANNEL", "TIME", "VALUE", "UNIT", "QUALITY")
	}
	row := &r.Row
	_, err := fmt.Fprintf(p.out, tableFormat, r.Lane, strconv.FormatUint(r.Sequence, 10), clip(r.Site+"/"+r.Gateway, 0), clip(string(row.Meter), 0),
		clip(row.Serial, 0), clip(row.Channel.Short(), 0), row.Stamp.UTC().Format(time.RFC3339), clip(row.Value.String(), 0), row.Unit, row.Quality)
	return err
}

func (p *tablePrinter) flush() error { return p.out.Flush() }
