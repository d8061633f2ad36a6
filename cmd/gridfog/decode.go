package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"gridgate/agent/batch"
	"gridgate/buffer"
	"gridgate/cmd/gridfog/track"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

// maxMessage bounds what is read of one input; MQTT has no longer messages.
const maxMessage = 256 << 20

func decodeVerb() cli.Verb {
	return cli.Verb{
		Name:    "decode",
		Summary: "print the readings in batches, in exported buffers, and as they come under topics",
		Args:    "[FILE…]",
		Example: []string{
			"gridfog decode -catalogue catalog.bin batch.bin",
			"gridfog decode -table recorded/*   # files that watch -record wrote",
			"gridfog decode -csv gw-1.ggex      # a file that gridgate buffer export wrote",
			"gridfog decode -broker mqtt://127.0.0.1:1883 -topic 'gridgate/1/north/+/up/readings/alarm'",
			"mosquitto_sub -t 'gridgate/1/+/+/up/#' -F %x | gridfog decode -hex -",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			d := &decoder{client: client{verb: "decode"}, catalogues: map[batch.Hash]*batch.Catalogue{}}
			fs.Func("catalogue", "read catalogues from this `FILE` first; may be repeated", func(s string) error {
				d.first = append(d.first, s)
				return nil
			})
			fs.BoolVar(&d.hex, "hex", false, "inputs are hexadecimal, a message a line")
			fs.BoolVar(&d.json, "json", false, "a JSON object a row; so it is without -table and -csv too")
			fs.BoolVar(&d.table, "table", false, "columns for people")
			fs.BoolVar(&d.csv, "csv", false, "comma separated values (RFC 4180) with a heading")
			fs.Func("topic", "subscribe to this `FILTER` and print what comes, until interrupted; may be repeated", func(s string) error {
				d.topics = append(d.topics, s)
				return nil
			})
			d.flags(fs, "mqtt://127.0.0.1:1883")
			fs.StringVar(&d.session, "session", "", "with -topic: keep a session of this `NAME` at the broker, so that nothing is missed while away")
			fs.DurationVar(&d.limit, "for", 0, "with -topic: end by itself after this `TIME`, as 90s or 2h")
			return d.run
		},
	}
}

// decoder is one run of the verb.
type decoder struct {
	client
	first, topics         []string
	hex, json, table, csv bool
	limit                 time.Duration

	printer    printer
	skipped    int // states among the inputs
	catalogues map[batch.Hash]*batch.Catalogue
	batches    []message
	archives   []message
	decoders   batch.Decoders
}

// message is a batch and where it came from.
type message struct {
	name    string
	payload []byte
}

// check checks the flags, and chooses the form of the output.
func (d *decoder) check(env cli.Env, args []string) error {
	if len(args)+len(d.topics) == 0 {
		return cli.Usagef("decode: no FILE given, and no -topic; - is the standard input")
	}
	if len(d.topics) == 0 && (d.limit != 0 || d.session != "") {
		return cli.Usagef("decode: -for and -session go with -topic")
	}
	for _, t := range d.topics {
		if err := checkFilter(t); err != nil {
			return err
		}
	}
	switch {
	case d.json && d.table, d.json && d.csv, d.table && d.csv:
		return cli.Usagef("decode: -json, -table and -csv: want one of them")
	case d.table:
		d.printer = &tablePrinter{out: bufio.NewWriter(env.Stdout)}
	case d.csv:
		d.printer = newCSVPrinter(env.Stdout)
	default:
		d.printer = jsonPrinter{bufio.NewWriter(env.Stdout)}
	}
	return nil
}

func (d *decoder) run(ctx context.Context, env cli.Env, args []string) error {
	if err := d.check(env, args); err != nil {
		return err
	}
	var listed []*batch.Catalogue
	var errs []error
	for _, name := range append(d.first, args...) {
		messages, err := d.read(env, name)
		errs = append(errs, err)
		for _, m := range messages {
			c, err := d.sort(m)
			errs = append(errs, err)
			if c != nil {
				listed = append(listed, c)
			}
		}
	}
	if len(d.batches)+len(d.archives)+len(d.topics) == 0 {
		if d.skipped > 0 && len(listed) == 0 {
			fmt.Fprintf(env.Stderr, "gridfog decode: %d states, which are JSON already, and nothing else\n", d.skipped)
		}
		return errors.Join(append(errs, printCatalogues(env.Stdout, listed))...)
	}
	for _, m := range d.batches {
		if err := d.print(env.Stderr, m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	for _, m := range d.archives {
		if err := d.printExport(env.Stderr, m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	errs = append(errs, d.printer.flush())
	if len(d.topics) > 0 {
		errs = append(errs, d.listen(ctx, env))
	}
	return errors.Join(errs...)
}

// printExport prints the rows of an exported buffer; its holes, and who signed
// it, go to the standard error. Rows before a damaged place are printed.
func (d *decoder) printExport(notes io.Writer, m message) error {
	info, err := buffer.ReadArchive(bytes.NewReader(m.payload), func(h *buffer.ArchiveHead, span meter.Span) error {
		stream := track.Stream{Site: h.Site, Gateway: h.Gateway, Epoch: h.Epoch, Lane: span.Lane}
		for i, row := range span.Rows {
			if err := d.printer.row(&track.Reading{Stream: stream, Sequence: span.Runs[0].First + uint64(i), Row: row}); err != nil {
				return err
			}
		}
		for _, hole := range span.Holes {
			printHole(notes, m.name, span.Lane, hole)
		}
		return nil
	})
	if err != nil {
		return err
	}
	signed := "not signed"
	if info.Signer != nil {
		signed = fmt.Sprintf("signed by %x: compare the key with the gateway's", info.Signer)
	}
	fmt.Fprintf(notes, "%s: %d rows, made %s, %s\n", m.name, info.Rows, time.UnixMilli(info.Head.Made).UTC().Format(time.RFC3339), signed)
	return nil
}

// read gives the messages of an input.
func (d *decoder) read(env cli.Env, name string) ([]message, error) {
	in := env.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // only read
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxMessage+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(b) > maxMessage {
		return nil, fmt.Errorf("%s: longer than %d bytes", name, maxMessage)
	}
	if !d.hex {
		return []message{{name, b}}, nil
	}
	var messages []message
	for i, line := range strings.Split(string(b), "\n") {
		digits := strings.Join(strings.Fields(line), "")
		if digits == "" {
			continue
		}
		where := fmt.Sprintf("%s:%d", name, i+1)
		payload, err := hex.DecodeString(digits)
		if err != nil {
			return nil, fmt.Errorf("%s: not hexadecimal: %w", where, err)
		}
		messages = append(messages, message{where, payload})
	}
	return messages, nil
}

// sort keeps a message as a catalogue, which it gives, or as a batch. A batch
// starts with its format; a catalogue does not.
func (d *decoder) sort(m message) (*batch.Catalogue, error) {
	if bytes.HasPrefix(m.payload, []byte("{")) {
		d.skipped++ // a state: mosquitto_sub prints them
		return nil, nil
	}
	if buffer.IsArchive(m.payload) {
		d.archives = append(d.archives, m)
		return nil, nil
	}
	if len(m.payload) > 0 && m.payload[0] == 0x08 {
		d.batches = append(d.batches, m)
		return nil, nil
	}
	c, err := batch.ParseCatalogue(m.payload)
	if err != nil {
		return nil, fmt.Errorf("%s: neither a batch nor a catalogue: %w", m.name, err)
	}
	d.catalogues[c.Hash()] = c
	return c, nil
}

// print prints the rows of a batch; its holes go to the standard error.
func (d *decoder) print(notes io.Writer, m message) error {
	h, span, err := d.decoders.Parse(m.payload, func(h batch.Hash) *batch.Catalogue { return d.catalogues[h] })
	var base *batch.UnknownBaseError
	if errors.As(err, &base) {
		return fmt.Errorf("lane %s: %w: it is in delta mode; give the files of all batches of its lane since number %d before it", h.Lane, err, base.Since)
	}
	var unknown *batch.UnknownCatalogueError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%w: give the file with the payload of topic gridgate/1/%s/%s/up/catalog/%s too", err, h.Site, h.Gateway, unknown.Hash)
	}
	if err != nil {
		return err
	}
	return d.rows(notes, m.name, h, span)
}

// rows prints what is in a batch that came from a name.
func (d *decoder) rows(notes io.Writer, name string, h batch.Header, span batch.Span) error {
	stream := track.Stream{Site: h.Site, Gateway: h.Gateway, Epoch: h.Epoch, Lane: h.Lane}
	row := 0
	for _, run := range span.Runs {
		for n := run.First; n < run.First+run.Count; n++ {
			if err := d.printer.row(&track.Reading{Stream: stream, Sequence: n, Row: span.Rows[row]}); err != nil {
				return err
			}
			row++
		}
	}
	for _, hole := range span.Holes {
		printHole(notes, name, h.Lane, hole)
	}
	return nil
}

func printHole(notes io.Writer, name string, lane meter.Lane, h meter.Hole) {
	fmt.Fprintf(notes, "%s: lane %s: numbers %d to %d carry no rows: %s, %s\n", name, lane, h.First, h.Last, h.Reason, lost(h))
}

func lost(h batch.Hole) string {
	if h.Count == 0 {
		return "nobody knows how many rows were lost"
	}
	return fmt.Sprintf("%d rows lost", h.Count)
}

// printCatalogues prints what catalogues number.
func printCatalogues(to io.Writer, all []*batch.Catalogue) error {
	out := bufio.NewWriter(to)
	for _, c := range all {
		for i, m := range c.Meters() {
			fmt.Fprintf(out, "{\"number\":%d,\"meter\":%s,\"serial\":%s}\n", i, jsonString(string(m.ID)), jsonString(m.Serial))
		}
		for i, ch := range c.Channels() {
			fmt.Fprintf(out, "{\"number\":%d,\"channel\":%s,\"kind\":%d,\"scale\":%d,\"unit\":%s}\n",
				i, jsonString(string(ch.Name)), ch.Kind, ch.Scale, jsonString(ch.Unit.String()))
		}
	}
	return out.Flush()
}
