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
		Summary: "print the readings in batches and in exported buffers, a JSON object a line",
		Args:    "FILE…",
		Example: []string{
			"gridfog decode -catalogue catalog.bin batch.bin",
			"gridfog decode recorded/*     # files that watch -record wrote",
			"gridfog decode gw-1.ggex      # a file that gridgate buffer export wrote",
			"mosquitto_sub -t 'gridgate/1/+/+/up/#' -F %x | gridfog decode -hex -",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			d := &decoder{catalogues: map[batch.Hash]*batch.Catalogue{}}
			fs.Func("catalogue", "read catalogues from this `FILE` first; may be repeated", func(s string) error {
				d.first = append(d.first, s)
				return nil
			})
			fs.BoolVar(&d.hex, "hex", false, "inputs are hexadecimal, a message a line")
			return d.run
		},
	}
}

// decoder is one run of the verb.
type decoder struct {
	first      []string
	hex        bool
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

func (d *decoder) run(_ context.Context, env cli.Env, args []string) error {
	if len(args) == 0 {
		return cli.Usagef("decode: no FILE given; - is the standard input")
	}
	var listed []*batch.Catalogue
	for _, name := range append(d.first, args...) {
		messages, err := d.read(env, name)
		if err != nil {
			return err
		}
		for _, m := range messages {
			c, err := d.sort(m)
			if err != nil {
				return err
			}
			if c != nil {
				listed = append(listed, c)
			}
		}
	}
	out := bufio.NewWriter(env.Stdout)
	if len(d.batches)+len(d.archives) == 0 {
		for _, c := range listed {
			printCatalogue(out, c)
		}
		return out.Flush()
	}
	var errs []error
	for _, m := range d.batches {
		if err := d.print(out, env.Stderr, m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	for _, m := range d.archives {
		if err := printExport(out, env.Stderr, m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	return errors.Join(append(errs, out.Flush())...)
}

// printExport prints the rows of an exported buffer; its holes, and who signed
// it, go to the standard error. Rows before a damaged place are printed.
func printExport(out *bufio.Writer, notes io.Writer, m message) error {
	info, err := buffer.ReadArchive(bytes.NewReader(m.payload), func(h *buffer.ArchiveHead, span meter.Span) error {
		stream := track.Stream{Site: h.Site, Gateway: h.Gateway, Epoch: h.Epoch, Lane: span.Lane}
		for i, row := range span.Rows {
			r := track.Reading{Stream: stream, Sequence: span.Runs[0].First + uint64(i), Row: row}
			if _, err := out.Write(append(r.AppendJSON(out.AvailableBuffer()), '\n')); err != nil {
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
	b, err := io.ReadAll(io.LimitReader(in, maxMessage))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
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
		return nil, nil // a state: watch records them, mosquitto_sub prints them
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
func (d *decoder) print(out *bufio.Writer, notes io.Writer, m message) error {
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
	stream := track.Stream{Site: h.Site, Gateway: h.Gateway, Epoch: h.Epoch, Lane: h.Lane}
	row := 0
	for _, run := range span.Runs {
		for n := run.First; n < run.First+run.Count; n++ {
			r := track.Reading{Stream: stream, Sequence: n, Row: span.Rows[row]}
			if _, err := out.Write(append(r.AppendJSON(out.AvailableBuffer()), '\n')); err != nil {
				return err
			}
			row++
		}
	}
	for _, hole := range span.Holes {
		printHole(notes, m.name, h.Lane, hole)
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

// printCatalogue prints what a catalogue numbers.
func printCatalogue(out *bufio.Writer, c *batch.Catalogue) {
	for i, m := range c.Meters() {
		fmt.Fprintf(out, "{\"number\":%d,\"meter\":%s,\"serial\":%s}\n", i, jsonString(string(m.ID)), jsonString(m.Serial))
	}
	for i, ch := range c.Channels() {
		fmt.Fprintf(out, "{\"number\":%d,\"channel\":%s,\"kind\":%d,\"scale\":%d,\"unit\":%s}\n",
			i, jsonString(string(ch.Name)), ch.Kind, ch.Scale, jsonString(ch.Unit.String()))
	}
}
