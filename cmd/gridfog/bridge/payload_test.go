package bridge

import (
	"bytes"
	"encoding/hex"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// everything has a metric of every kind.
func everything() []Metric {
	return []Metric{
		{Name: "bdSeq", Timestamp: 1_700_000_000_000, Type: TypeInt64},
		{Name: "a/b", Alias: 300, Timestamp: 1, Type: TypeUInt64, Bits: math.MaxUint64, Properties: []Property{{Key: "Quality", Number: 192}, {Key: "engUnit", Text: "Wh"}}},
		{Alias: 2, Timestamp: 3, Type: TypeInt64, Bits: math.MaxUint64 - 4, HideType: true, Historical: true},
		{Alias: 4, Timestamp: 5, Type: TypeFloat, Bits: 0x4366199A},
		{Alias: 6, Timestamp: 7, Type: TypeDouble, Bits: math.Float64bits(230.1)},
		{Alias: 8, Timestamp: 9, Type: TypeBoolean, Bits: 1},
		{Alias: 10, Timestamp: 11, Type: TypeBoolean},
		{Alias: 12, Timestamp: 13, Type: TypeString, Data: "ok"},
		{Alias: 14, Timestamp: 15, Type: TypeString},
		{Alias: 16, Timestamp: 17, Type: TypeBytes, Data: "\x00\xff"},
		{Alias: 18, Timestamp: 19, Type: TypeDouble, Null: true, Properties: []Property{{Key: "Quality", Number: 0}}},
	}
}

func TestPayloadBytes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"death": {appendPayload(nil, 1_700_000_000_000, noSeq, everything()[:1]), // bdSeq 0, timestamp, no seq
			"0880d095ffbc31" + "1212" + "0a056264536571" + "1880d095ffbc31" + "2004" + "5800"},
		"data": {appendPayload(nil, 1, 0, everything()[6:7]), "0801" + "1208" + "100a" + "180b" + "200b" + "7000" + "1800"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, c.want)
		}
	}
}

// schema is testdata/sparkplug.proto, compiled by protoc (Debian:
// protobuf-compiler).
func schema(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	out := filepath.Join(t.TempDir(), "sparkplug.binpb")
	if text, err := exec.CommandContext(t.Context(), "protoc", "--descriptor_set_out="+out, "testdata/sparkplug.proto").CombinedOutput(); err != nil {
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
	file, err := files.FindFileByPath("testdata/sparkplug.proto")
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().ByName("Payload")
}

// TestProtobufRuntimeReadsWhatWeWrite holds our bytes against the protobuf
// runtime, which writes the same ones, and against protoc's own words.
func TestProtobufRuntimeReadsWhatWeWrite(t *testing.T) {
	t.Parallel()
	b := appendPayload(nil, 1_700_000_000_123, 255, everything())
	m := dynamicpb.NewMessage(schema(t))
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("the runtime writes\n%x where we write\n%x (%v)", again, b, err)
	}
	cmd := exec.CommandContext(t.Context(), "protoc", "--decode=sparkplug.Payload", "testdata/sparkplug.proto")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range []string{
		`timestamp: 1700000000123 metrics { name: "bdSeq" timestamp: 1700000000000 datatype: 4 long_value: 0 }`,
		`metrics { name: "a/b" alias: 300 timestamp: 1 datatype: 8 properties { keys: "Quality" keys: "engUnit" values { type: 3 int_value: 192 } values { type: 12 string_value: "Wh" } } long_value: 18446744073709551615 }`,
		`metrics { alias: 2 timestamp: 3 is_historical: true long_value: 18446744073709551611 }`,
		`metrics { alias: 4 timestamp: 5 datatype: 9 float_value: 230.1 }`,
		`metrics { alias: 6 timestamp: 7 datatype: 10 double_value: 230.1 }`,
		`metrics { alias: 8 timestamp: 9 datatype: 11 boolean_value: true } metrics { alias: 10 timestamp: 11 datatype: 11 boolean_value: false }`,
		`metrics { alias: 12 timestamp: 13 datatype: 12 string_value: "ok" } metrics { alias: 14 timestamp: 15 datatype: 12 string_value: "" }`,
		`metrics { alias: 16 timestamp: 17 datatype: 17 bytes_value: "\000\377" }`,
		`metrics { alias: 18 timestamp: 19 datatype: 10 is_null: true properties { keys: "Quality" values { type: 3 int_value: 0 } } } seq: 255`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("protoc says\n%s\nwithout\n%s", text, want)
		}
	}
}
