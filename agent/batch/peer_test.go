package batch

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"gridgate/internal/column/columntest"
)

// schema is batch.proto, compiled by protoc (Debian: protobuf-compiler).
func schema(t *testing.T) protoreflect.FileDescriptor {
	t.Helper()
	out := filepath.Join(t.TempDir(), "batch.binpb")
	if text, err := exec.CommandContext(t.Context(), "protoc", "--descriptor_set_out="+out, "batch.proto").CombinedOutput(); err != nil {
		t.Fatalf("protoc: %v\n%s", err, text)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		t.Fatal(err)
	}
	file, err := files.FindFileByPath("batch.proto")
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// decode reads b as the schema's message, by the protobuf runtime. b must have
// no field that the schema does not, and be what the runtime writes itself.
func decode(t *testing.T, file protoreflect.FileDescriptor, name protoreflect.Name, b []byte) *dynamicpb.Message {
	t.Helper()
	m := dynamicpb.NewMessage(file.Messages().ByName(name))
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		t.Errorf("%s: fields that the schema does not have: %x", name, unknown)
	}
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("%s: the runtime writes\n%x where we write\n%x (%v)", name, again, b, err)
	}
	return m
}

// get is a field by its name in the schema.
func get(m protoreflect.Message, name protoreflect.Name) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(name))
}

// content is what a Body or Catalogue holds, inflated if need be.
func content(t *testing.T, m protoreflect.Message) []byte {
	t.Helper()
	deflated := get(m, "deflated").Bytes()
	if len(deflated) == 0 {
		return get(m, "plain").Bytes()
	}
	p, err := io.ReadAll(flate.NewReader(bytes.NewReader(deflated)))
	if err != nil || uint64(len(p)) != get(m, "size").Uint() {
		t.Fatalf("%d bytes, size %d, %v", len(p), get(m, "size").Uint(), err)
	}
	return p
}

func TestProtobufRuntimeReadsWhatWeWrite(t *testing.T) {
	t.Parallel()
	file := schema(t)
	for name, s := range map[string]Span{"small": span(), "kinds": kinds(), "walk": walk()} {
		b, c := pack(t, header(), s)
		m := decode(t, file, "Batch", b)
		hash := c.Hash()
		if get(m, "format").Uint() != Format || get(m, "site").String() != "north" || get(m, "gateway").String() != "gw-7" ||
			get(m, "epoch").Uint() != 0x0123456789ABCDEF || get(m, "lane").Enum() != 2 || !bytes.Equal(get(m, "catalogue").Bytes(), hash[:]) {
			t.Errorf("%s: header: %v", name, m)
		}
		if holes := get(m, "holes").List(); holes.Len() != len(s.Holes) || holes.Len() > 0 &&
			(get(holes.Get(0).Message(), "first").Uint() != 1001 || get(holes.Get(0).Message(), "more").Uint() != 2 || get(holes.Get(0).Message(), "reason").Enum() != 3) {
			t.Errorf("%s: holes: %v", name, holes)
		}
		columns := decode(t, file, "Columns", content(t, get(m, "rows").Message()))
		if got := get(columns, "rows").Uint(); got != uint64(len(s.Rows)) {
			t.Errorf("%s: %d rows, want %d", name, got, len(s.Rows))
		}
		raw, _ := c.AppendBinary(nil)
		dict := decode(t, file, "Dict", content(t, decode(t, file, "Catalogue", raw)))
		if first := get(dict, "meters").List().Get(0).Message(); get(first, "id").String() != string(s.Rows[0].Meter) {
			t.Errorf("%s: first meter: %v", name, first)
		}
		if n := get(dict, "channels").List().Len(); n != len(c.Channels()) {
			t.Errorf("%s: %d channels, want %d", name, n, len(c.Channels()))
		}
	}
}

func TestEnumsOfTheSchemaAreOurs(t *testing.T) {
	t.Parallel()
	enums := schema(t).Enums()
	for name, n := range map[protoreflect.Name]int{"Lane": int(Instant) + 1, "Kind": int(DateTime) + 1, "Reason": int(Damaged) + 1} {
		if got := enums.ByName(name).Values().Len(); got != n {
			t.Errorf("%s has %d values, want %d", name, got, n)
		}
	}
}

// foreignRow is a line that decode.py and decode.mjs print.
type foreignRow struct {
	Sequence                                 uint64
	Meter, Serial, Channel                   string
	Kind                                     Kind
	Scale                                    int8
	Unit                                     Unit
	Bits                                     uint64
	Data                                     string
	Time, Mono                               int64
	Boot, Bound, Quality, Period, Occurrence uint32
	Source                                   uint8
	Status                                   *uint64
}

// row is the row that the line speaks of.
func (p foreignRow) row(t *testing.T, lane Lane) Row {
	t.Helper()
	data, err := hex.DecodeString(p.Data)
	if err != nil {
		t.Fatal(err)
	}
	r := Row{
		Meter: ID(p.Meter), Serial: p.Serial, Channel: Channel(p.Channel),
		Stamp: Stamp{Time: p.Time, Mono: p.Mono, Boot: p.Boot, Bound: p.Bound, Source: Source(p.Source)},
		Value: Value{Kind: p.Kind, Scale: p.Scale, Bits: p.Bits, Data: string(data)}, Lane: lane, Unit: p.Unit,
		Quality: Quality(p.Quality), Period: p.Period, Occurrence: uint8(p.Occurrence),
	}
	if p.Status != nil {
		r.Status, r.HasStatus = *p.Status, true
	}
	return r
}

// deltas are batches in delta mode, with the catalogue that all need: of a walk
// with integers or floats, with a hole, and with a meter that comes later.
func deltas(t *testing.T, value func(float64, int8) Value) ([][]byte, []Span, *Catalogue) {
	t.Helper()
	w, e, c, l := columntest.NewWalk(seed, 12, value), NewEncoder(9), NewCatalogue(), lane{}
	late := Row{Meter: "late", Channel: "x", Value: Value{Kind: Text, Data: "on"}, Lane: Instant}
	spans := make([]Span, 5)
	for i := range spans {
		rows := w.Round()
		if i > 1 {
			rows = append(rows, late)
		}
		spans[i] = l.span(rows)
		c.Add(rows)
		if i == 2 {
			l.next, spans[i].Last = l.next+3, spans[i].Last+3
			spans[i].Holes = []Hole{{First: l.next - 3, Last: l.next - 1, Reason: Quota, Count: 3}}
		}
	}
	batches := make([][]byte, len(spans))
	for i, s := range spans {
		batches[i] = mustEncode(t, e, s, c)
		e.Confirmed(header().Epoch, s.Last)
	}
	return batches, spans, c
}

// decoders are programs in other languages that were written from
// docs/formats.md.
func decoders() map[string][]string {
	return map[string][]string{
		"Python":     {"/usr/bin/python3", "decode.py"},
		"JavaScript": {"node", "testdata/js/decode.mjs"},
	}
}

// decodeElsewhere has a program decode batches and holds its rows against ours.
func decodeElsewhere(t *testing.T, program []string, batches [][]byte, spans []Span, c *Catalogue) {
	t.Helper()
	raw, _ := c.AppendBinary(nil)
	dir := t.TempDir()
	args := append(slices.Clone(program), filepath.Join(dir, "catalogue"))
	if err := os.WriteFile(args[len(args)-1], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, b := range batches {
		args = append(args, filepath.Join(dir, fmt.Sprint("batch", i)))
		if err := os.WriteFile(args[len(args)-1], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var text bytes.Buffer
	cmd.Stderr = &text
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, text.Bytes())
	}
	lines := json.NewDecoder(bytes.NewReader(out))
	for _, s := range spans {
		next := sequence(s)
		for i, want := range s.Rows {
			var p foreignRow
			if err := lines.Decode(&p); err != nil {
				t.Fatalf("row %d: %v", i, err)
			}
			if got := p.row(t, s.Lane); got != want || p.Sequence != next[i] {
				t.Fatalf("row %d: %d %+v\nwant %d %+v", i, p.Sequence, got, next[i], want)
			}
		}
	}
	if lines.More() {
		t.Error("more rows than there are")
	}
}

// TestOthersReadWhatWeWrite holds docs/formats.md true: decode.py was written from
// it with no library but Python's own, decode.mjs on top of what protobufjs makes
// of batch.proto (scripts/setup.sh installs it).
func TestOthersReadWhatWeWrite(t *testing.T) {
	t.Parallel()
	for name, program := range decoders() {
		for what, s := range map[string]Span{"small": span(), "kinds": kinds(), "walk": walk()} {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				b, c := pack(t, header(), s)
				decodeElsewhere(t, program, [][]byte{b}, []Span{s}, c)
			})
		}
		for what, value := range map[string]func(float64, int8) Value{
			"integers": columntest.Int, "decimal floats": columntest.DecimalFloat, "binary floats": columntest.RawFloat,
		} {
			t.Run(name+" delta mode "+what, func(t *testing.T) {
				t.Parallel()
				batches, spans, c := deltas(t, value)
				decodeElsewhere(t, program, batches, spans, c)
			})
		}
	}
}

// sequence is the numbers of a span's rows.
func sequence(s Span) (numbers []uint64) {
	for _, r := range s.Runs {
		for i := range r.Count {
			numbers = append(numbers, r.First+i)
		}
	}
	return numbers
}
