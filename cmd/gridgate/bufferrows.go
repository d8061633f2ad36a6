package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gridgate/buffer"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/sys/zone"
)

// query reads the flags that say which rows are wanted.
func (f *bufferFlags) query() (q buffer.Query, err error) {
	if f.lane != "" {
		l, err := meter.ParseLane(f.lane)
		if err != nil {
			return q, cli.Usagef("buffer: -lane: %v", err)
		}
		q.Lanes = []meter.Lane{l}
	}
	if f.meter != "" {
		if q.Meter, err = meter.ParseID(f.meter); err != nil {
			return q, cli.Usagef("buffer: -meter: %v", err)
		}
	}
	if f.channel != "" {
		if q.Channel, err = meter.ParseChannel(f.channel); err != nil {
			return q, cli.Usagef("buffer: -channel: %v", err)
		}
	}
	in, err := zone.Load(f.zone)
	if err != nil {
		return q, cli.Usagef("buffer: -zone %q: no such zone", f.zone)
	}
	for _, t := range []struct {
		name, text string
		to         *int64
	}{{"-from", f.from, &q.From}, {"-to", f.to, &q.To}} {
		if t.text == "" {
			continue
		}
		at, err := parseTime(t.name, t.text, in)
		if err != nil {
			return q, err
		}
		*t.to = at.UnixMilli()
	}
	if f.to != "" && q.To <= q.From {
		return q, cli.Usagef("buffer: -to %s is not after -from %s", f.to, f.from)
	}
	return q, nil
}

func bufferQuery(ctx context.Context, w *bufio.Writer, f *bufferFlags, _ []string) error {
	if f.asJSON && f.asCSV {
		return cli.Usagef("buffer: -json and -csv: want one of them")
	}
	q, err := f.query()
	if err != nil {
		return err
	}
	const format = "%-8s  %10s  %-12s  %-14s  %-22s  %-20s  %18s  %-6s  %s\n"
	switch {
	case f.asJSON:
	case f.asCSV:
		fmt.Fprint(w, "lane,sequence,meter,serial,channel,time,value,unit,quality,period,status\r\n")
	default:
		fmt.Fprintf(w, format, "LANE", "SEQUENCE", "METER", "SERIAL", "CHANNEL", "TIME", "VALUE", "UNIT", "QUALITY")
	}
	var line []byte
	return f.rows(ctx, q, func(sequence uint64, r *meter.Row) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case f.asJSON:
			line = append(line[:0], `{"lane":"`...)
			line = append(append(line, r.Lane.String()...), `","sequence":`...)
			line = append(strconv.AppendUint(line, sequence, 10), ',')
			line = append(r.AppendJSONFields(line), '}', '\n')
		case f.asCSV:
			line = appendCSV(line[:0], sequence, r)
		default:
			_, err := fmt.Fprintf(w, format, r.Lane, strconv.FormatUint(sequence, 10), r.Meter, r.Serial, r.Channel.Short(),
				r.Stamp.UTC().Format(time.RFC3339), r.Value, r.Unit, r.Quality)
			return err
		}
		_, err := w.Write(line)
		return err
	})
}

// appendCSV appends a row as RFC 4180 has it, with all digits.
func appendCSV(b []byte, sequence uint64, r *meter.Row) []byte {
	period, status := "", ""
	if r.Period > 0 {
		period = strconv.FormatUint(uint64(r.Period), 10)
	}
	if r.HasStatus {
		status = strconv.FormatUint(r.Status, 10)
	}
	for i, field := range []string{
		r.Lane.String(), strconv.FormatUint(sequence, 10), string(r.Meter), r.Serial, string(r.Channel),
		r.Stamp.UTC().Format("2006-01-02T15:04:05.000Z"), r.Value.String(), r.Unit.String(), r.Quality.String(), period, status,
	} {
		if i > 0 {
			b = append(b, ',')
		}
		if !strings.ContainsAny(field, "\",\r\n") {
			b = append(b, field...)
			continue
		}
		b = append(b, '"')
		b = append(b, strings.ReplaceAll(field, `"`, `""`)...)
		b = append(b, '"')
	}
	return append(b, '\r', '\n')
}

// archiveJSON is what export and import print.
type archiveJSON struct {
	File    string `json:"file"`
	Site    string `json:"site"`
	Gateway string `json:"gateway"`
	Epoch   string `json:"epoch"`
	Rows    uint64 `json:"rows"`
	Holes   uint64 `json:"holes"`
	Signer  string `json:"signer"` // the public key, hexadecimal, or nothing
}

func printArchive(w *bufio.Writer, asJSON bool, what, file string, a buffer.ArchiveInfo) error {
	signer := hex.EncodeToString(a.Signer)
	if asJSON {
		return json.NewEncoder(w).Encode(archiveJSON{
			file, a.Head.Site, a.Head.Gateway, fmt.Sprintf("%016x", a.Head.Epoch), a.Rows, a.Holes, signer,
		})
	}
	signed := "not signed"
	if signer != "" {
		signed = "signed by " + signer
	}
	_, err := fmt.Fprintf(w, "%s: %s %d rows and %d holes of epoch %016x, %s\n", file, what, a.Rows, a.Holes, a.Head.Epoch, signed)
	return err
}

// bufferExport writes under another name first: a stick that is pulled out
// leaves no half file that looks whole.
func bufferExport(ctx context.Context, w *bufio.Writer, f *bufferFlags, args []string) error {
	name := args[0]
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("export: %s is there already; name a new file", name)
	}
	part := name + ".part"
	file, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	out := bufio.NewWriterSize(file, 64<<10)
	info, err := f.export(ctx, out)
	if err == nil {
		err = errors.Join(out.Flush(), file.Sync())
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(part, name)
	}
	if err != nil {
		_ = os.Remove(part)
		return fmt.Errorf("export: %w", err)
	}
	if dir, err := os.Open(filepath.Dir(name)); err == nil {
		_ = dir.Sync() // not every stick's file system knows how
		_ = dir.Close()
	}
	return printArchive(w, f.asJSON, "has", name, info)
}

func bufferImport(ctx context.Context, w *bufio.Writer, f *bufferFlags, args []string) error {
	file, err := os.Open(args[0])
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	info, err := buffer.Import(ctx, f.dir, file, f.all, buffer.Options{})
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return printArchive(w, f.asJSON, "brought in", args[0], info)
}

func bufferCompact(_ context.Context, w *bufio.Writer, f *bufferFlags, _ []string) error {
	before, after, err := buffer.Compact(f.dir)
	if err != nil {
		return err
	}
	if f.asJSON {
		_, err = fmt.Fprintf(w, "{\"before\":%d,\"after\":%d}\n", before, after)
		return err
	}
	_, err = fmt.Fprintf(w, "from %d octets to %d\n", before, after)
	return err
}
