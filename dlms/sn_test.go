package dlms

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

const shortServices = Read | Write | MultipleReferences | ParameterizedAccess

// short gives a client with an association by short names, over a script, that
// knows the base names of a register, a profile and a breaker.
func short(t testing.TB, pdu uint16, answers ...string) (*Client, *script) {
	t.Helper()
	c, s := granted(t, shortServices, pdu, answers...)
	c.options.ShortNames = true
	c.UseNames([]Object{
		{Name: 0x2BC0, Class: 3, Code: energy().Code},
		{Name: 0x1C00, Class: 7, Code: obis.Code{1, 0, 99, 1, 0, 255}},
		{Name: 0x3000, Class: 70, Code: breaker(1).Code},
	})
	return c, s
}

func TestShortNamesAreAskedFor(t *testing.T) {
	t.Parallel()
	s := &script{answers: [][]byte{unhex(t, "6129A109060760857405080102A203020100A305A103020100BE10040E0800065F1F04001C0B200190FA00")}}
	c := NewClient(s, Options{ShortNames: true, Conformance: 0x1C0320, MaxPDU: 0xFFFF})
	got, err := c.Associate(t.Context())
	if err != nil || got != (Association{Conformance: 0x1C0B20, MaxPDU: 0x190, VAA: 0xFA00}) {
		t.Errorf("granted %+v, %v", got, err)
	}
	same(t, "association", s, "601D A109060760857405080102 BE10 040E 01000000 06 5F1F0400 1C0320 FFFF")
}

func TestReadByShortName(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers, sent []string
		is            error
	}{
		"data":            {[]string{"0C 01 00 06000004D2"}, nil, nil},
		"in blocks":       {[]string{"0C 01 02 00 0001 04 01000600", "0C 01 02 01 0002 03 0004D2"}, []string{"05 01 05 0001"}, nil},
		"data in blocks":  {[]string{"0C 01 02 00 0001 02 0600", "0C 01 02 01 0002 03 0004D2"}, []string{"05 01 05 0001"}, nil},
		"denied":          {[]string{"0C 01 01 03"}, nil, ReadWriteDenied},
		"refused midway":  {[]string{"0C 01 02 00 0001 04 01000600", "0C 01 01 0E"}, []string{"05 01 05 0001"}, BlockUnavailable},
		"another block":   {[]string{"0C 01 02 00 0002 04 01000600"}, nil, ErrMalformed},
		"whole midway":    {[]string{"0C 01 02 00 0001 04 01000600", "0C 01 00 1105"}, []string{"05 01 05 0001"}, ErrMalformed},
		"two answers":     {[]string{"0C 02 00 1105 00 1106"}, nil, ErrMalformed},
		"block cut short": {[]string{"0C 01 02 00 0001 04 0100"}, nil, ErrMalformed},
		"service error":   {[]string{"0E 05 05 02"}, nil, nil},
	} {
		client, s := short(t, 0, c.answers...)
		v, err := client.Get(t.Context(), energy())
		var service *ServiceError
		switch {
		case name == "service error":
			if !errors.As(err, &service) || err.Error() != "get 1-0:1.8.0*255/3:2: read: object access violated" {
				t.Errorf("%s: %v", name, err)
			}
		case c.is == nil && (err != nil || !v.Equal(axdr.DoubleLongUnsigned(1234))), !errors.Is(err, c.is):
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		same(t, name, s, append([]string{"05 01 02 2BC8"}, c.sent...)...)
	}
}

func TestParameterizedAccess(t *testing.T) {
	t.Parallel()
	buffer := Attribute{Class: 7, Code: obis.Code{1, 0, 99, 1, 0, 255}, ID: 2}
	client, s := short(t, 0, "0C 01 00 0100", "0C 01 00 0100", "0C 02 00 1105 00 1106")
	if v, err := client.GetEntries(t.Context(), buffer, Entries{From: 1, To: 4}); err != nil || v.Tag != axdr.TagArray {
		t.Errorf("entries: %+v, %v", v, err)
	}
	if v, err := client.GetRange(t.Context(), buffer, Range{From: DateTime{Year: 1}, To: DateTime{Year: 2}}); err != nil || v.Tag != axdr.TagArray {
		t.Errorf("range: %+v, %v", v, err)
	}
	three := axdr.Unsigned(3)
	items, err := client.ReadNames(t.Context(), []Name{{Name: 0x1234}, {Name: 0x5678, Selector: 9, Parameter: &three}})
	if err != nil || fmt.Sprint(items) != fmt.Sprint([]Item{{Value: axdr.Unsigned(5)}, {Value: axdr.Unsigned(6)}}) {
		t.Errorf("names: %v, %v", items, err)
	}
	same(t, "parameters", s, "05 01 04 1C08 02 0204 0600000001 0600000004 120001 120000",
		"05 01 04 1C08 01 0204 0204 120008 09060000010000FF 0F02 120000 090C000100000000000000000000 090C000200000000000000000000 0100",
		"05 02 02 1234 04 5678 09 1103")
}

func TestReadListByShortNames(t *testing.T) {
	t.Parallel()
	scale := energy()
	scale.ID = 3
	list := []Attribute{energy(), clockObject(), scale, breaker(2)}
	client, s := short(t, 8, "0C 02 00 1105 01 03", "0C 01 00 0301")
	items, err := client.ReadList(t.Context(), list)
	want := []Item{{Value: axdr.Unsigned(5)}, {Err: ObjectUndefined}, {Err: ReadWriteDenied}, {Value: axdr.Boolean(true)}}
	if err != nil || fmt.Sprint(items) != fmt.Sprint(want) {
		t.Errorf("%v, %v; want %v", items, err, want)
	}
	same(t, "list", s, "05 02 02 2BC8 02 2BD0", "05 01 02 3008")
	client, _ = short(t, 8, "0C 02 00 1105 01 03")
	if items, err := client.ReadList(t.Context(), list); !errors.Is(err, errSilence) || len(items) != 3 {
		t.Errorf("silence after the first: %v, %v", items, err)
	}
}

func TestWriteByShortName(t *testing.T) {
	t.Parallel()
	client, s := short(t, 0, "0D 01 00", "0D 01 01 03", "0C 01 00 00", "0C 01 00 0901AA", "0D 02 00 01 0C")
	if err := client.Set(t.Context(), breaker(4), axdr.Enum(2)); err != nil {
		t.Error(err)
	}
	if err := client.Set(t.Context(), energy(), axdr.Unsigned(2)); !errors.Is(err, ReadWriteDenied) {
		t.Errorf("denied: %v", err)
	}
	if _, err := client.Action(t.Context(), breaker(2), nil); err != nil {
		t.Error(err)
	}
	challenge := axdr.OctetString("abc")
	hls := Attribute{Class: 12, Code: obis.Code{0, 0, 40, 0, 0, 255}, ID: 8}
	if v, err := client.Action(t.Context(), hls, &challenge); err != nil || !v.Equal(axdr.OctetString("\xAA")) {
		t.Errorf("a method that returns: %+v, %v", v, err)
	}
	results, err := client.WriteNames(t.Context(), []NamedValue{{Name: 0x1234, Value: axdr.Unsigned(1)}, {Name: 0x5678, Value: axdr.Enum(2)}})
	if err != nil || fmt.Sprint(results) != fmt.Sprint([]error{nil, TypeUnmatched}) {
		t.Errorf("%v, %v", results, err)
	}
	same(t, "write", s, "06 01 02 3018 01 1602", "06 01 02 2BC8 01 1102", "05 01 02 3028", "05 01 04 FA58 01 0903616263", "06 02 02 1234 02 5678 02 1101 1602")
	for name, answer := range map[string]string{"two results": "0D020000", "cut short": "0D01", "choice": "0D0102"} {
		client, _ := short(t, 0, answer)
		if err := client.Set(t.Context(), breaker(4), axdr.Enum(2)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	client, s = short(t, 0)
	if _, err := client.Action(t.Context(), Attribute{Class: 1}, nil); !errors.Is(err, ErrNotGranted) || len(s.sent) != 0 {
		t.Errorf("a method that a class does not have: %v", err)
	}
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	list := axdr.Array(
		axdr.Structure(axdr.Long(0x2BC0), axdr.LongUnsigned(3), axdr.Unsigned(1), axdr.OctetString("\x01\x00\x01\x08\x00\xFF")),
		axdr.Structure(axdr.Long(-0x600), axdr.LongUnsigned(12), axdr.Unsigned(2), axdr.OctetString("\x00\x00\x28\x00\x00\xFF")))
	b, err := list.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	client, s := granted(t, shortServices, 0, fmt.Sprintf("0C0100%x", b), "0C 01 00 1105", "0C 01 00 1106")
	client.options.ShortNames = true
	for i := range 2 { // the directory is read once
		if v, err := client.Get(t.Context(), energy()); err != nil || v.Num != uint64(5+i) {
			t.Errorf("%+v, %v", v, err)
		}
	}
	same(t, "directory", s, "05 01 02 FA08", "05 01 02 2BC8", "05 01 02 2BC8")
	objects, err := ParseShortNames(list)
	want := []Object{{0x2BC0, 3, 1, energy().Code}, {0xFA00, 12, 2, obis.Code{0, 0, 40, 0, 0, 255}}}
	if err != nil || fmt.Sprint(objects) != fmt.Sprint(want) {
		t.Errorf("%v, %v; want %v", objects, err, want)
	}
	for _, bad := range []axdr.Value{axdr.Null(), axdr.Array(axdr.Null()), axdr.Array(axdr.Structure(list.Items[0].Items[:3]...))} {
		if objects, err := ParseShortNames(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v, %v", bad, objects, err)
		}
	}
	client, s = granted(t, Get, 0)
	if _, err := client.LoadNames(t.Context()); !errors.Is(err, ErrNotGranted) || len(s.sent) != 0 {
		t.Errorf("reading that is not granted: %v", err)
	}
}

func TestServiceErrorsInWords(t *testing.T) {
	t.Parallel()
	for e, want := range map[ServiceError]string{
		{1, 6, 2}: "initiate: incompatible conformance", {5, 4, 1}: "read: object undefined", {6, 5, 1}: "write: scope of access violated",
		{5, 0, 6}: "read: deciphering error", {5, 1, 1}: "read: memory unavailable", {5, 2, 1}: "read: no dlms context",
		{5, 3, 1}: "read: pdu size too long", {5, 7, 4}: "read: segment not awaited", {5, 9, 3}: "read: running",
		{5, 5, 9}: "read: access error 9", {5, 8, 1}: "read: error kind 8: error 1", {99, 3, 0}: "service 99: service: other",
	} {
		if got := e.Error(); got != want {
			t.Errorf("%+v: %s, want %s", e, got, want)
		}
	}
}

// FuzzRead feeds two answers to a read of two names, and to one in blocks.
func FuzzRead(f *testing.F) {
	f.Add(unhex(f, "0C02001105"+"0103"), unhex(f, "0C010011"+"05"))
	f.Add(unhex(f, "0C010200000104"+"02001105"), unhex(f, "0C0102010002020104"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		c, s := short(t, 0)
		s.answers = [][]byte{first, second}
		items, err := c.ReadNames(t.Context(), []Name{{Name: 1}, {Name: 2}})
		if err != nil {
			return
		}
		if len(items) != 2 {
			t.Fatalf("%d items", len(items))
		}
		again := []byte{tagReadResponse, 2}
		for _, item := range items {
			if item.Err != nil {
				again = append(again, 1, byte(item.Err.(AccessError))) //nolint:errorlint // its number is wanted
				continue
			}
			if again, err = item.Value.AppendBinary(append(again, 0)); err != nil {
				t.Fatal(err)
			}
		}
		twice, err := parseReadResponse(bytes.Clone(again), 2)
		if err != nil || fmt.Sprint(twice) != fmt.Sprint(items) {
			t.Fatalf("%v encoded as %x decodes to %v, %v", items, again, twice, err)
		}
	})
}

// TestShortBlocks has requests that are too long for the meter, octet for octet.
func TestShortBlocks(t *testing.T) {
	t.Parallel()
	client, s := short(t, 21,
		"0D 01 02 0001", "0D 01 02 0002", "0D 01 00", "0D 01 02 0001", "0D 01 02 0002", "0D 01 01 11",
		"0D 01 01 11", "0D 01 02 0002", "0D 01 03 0001", "0C 01 03 0001", "0C 01 00 1105")
	value := axdr.OctetString("ABCDEFGHIJKLMN")
	write := func() error {
		results, err := client.WriteNames(t.Context(), []NamedValue{{Name: 0x1234, Value: value}})
		if err == nil {
			err = results[0]
		}
		return err
	}
	if err := write(); err != nil {
		t.Error(err)
	}
	if err := write(); !errors.Is(err, LongSetAborted) {
		t.Errorf("refused at the end: %v", err)
	}
	if err := write(); !errors.Is(err, LongSetAborted) {
		t.Errorf("refused midway: %v", err)
	}
	for _, what := range []string{"another block", "another choice"} {
		if err := write(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	const (
		first = "06 01 07 00 0001 01 09 09 01 02 1234 01 09 0E 4142"
		next  = "06 01 07 00 0002 01 09 09 434445464748494A4B"
		last  = "06 01 07 01 0003 01 09 03 4C4D4E"
	)
	items, err := client.ReadNames(t.Context(), []Name{{Name: 0x1234, Selector: 2, Parameter: &value}})
	if err != nil || !items[0].Value.Equal(axdr.Unsigned(5)) {
		t.Errorf("%v, %v", items, err)
	}
	same(t, "blocks", s, first, next, last, first, next, last, first, first, first,
		"05 01 06 00 0001 0C 01 04 1234 02 09 0E 4142434445", "05 01 06 01 0002 09 464748494A4B4C4D4E")
}

// TestUnconfirmedWrite has a write that waits for nothing.
func TestUnconfirmedWrite(t *testing.T) {
	t.Parallel()
	client, s := short(t, 24)
	list := []NamedValue{{Name: 0x1234, Value: axdr.Unsigned(1)}, {Name: 0x5678, Value: axdr.Enum(2), Selector: 1, Parameter: &axdr.Value{}}}
	if err := client.WriteNamesUnconfirmed(t.Context(), list); !errors.Is(err, ErrNotGranted) {
		t.Error(err)
	}
	client.granted.Conformance |= UnconfirmedWrite
	if err := client.WriteNamesUnconfirmed(t.Context(), list); err != nil {
		t.Error(err)
	}
	if err := client.WriteNamesUnconfirmed(t.Context(), append(list, list...)); !errors.Is(err, ErrNotGranted) {
		t.Error(err)
	}
	same(t, "unconfirmed", s, "16 02 02 1234 04 5678 01 00 02 1101 1602")
}

// FuzzWriteNames feeds two answers to a write in three blocks, and to the last
// that it is done: nothing but what asks for more has it done.
func FuzzWriteNames(f *testing.F) {
	f.Add(unhex(f, "0D01020001"), unhex(f, "0D01020002"))
	f.Add(unhex(f, "0D01020001"), unhex(f, "0D010111"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		c, s := short(t, 22)
		s.answers = [][]byte{first, second, {tagWriteResponse, 1, 0}}
		results, err := c.WriteNames(t.Context(), []NamedValue{{Name: 1, Value: axdr.OctetString("ABCDEFGHIJKLMNO")}})
		if err == nil && (len(results) != 1 || results[0] != nil || len(s.sent) != 3 ||
			!bytes.Equal(first, []byte{tagWriteResponse, 1, writeNext, 0, 1}) || !bytes.Equal(second, []byte{tagWriteResponse, 1, writeNext, 0, 2})) {
			t.Fatalf("%x, %x gave %v", first, second, results)
		}
	})
}
