package dlms

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// granted gives a client with an association of these services and PDU size,
// over a script.
func granted(t testing.TB, services Conformance, pdu uint16, answers ...string) (*Client, *script) {
	t.Helper()
	s := &script{}
	for _, a := range answers {
		s.answers = append(s.answers, unhex(t, a))
	}
	c := NewClient(s, Options{})
	c.open, c.granted = true, Association{Conformance: services, MaxPDU: pdu, VAA: 7}
	return c, s
}

const everything = Get | Set | Action | MultipleReferences | BlockTransferGet | BlockTransferSet | BlockTransferAction

func clockObject() Attribute {
	return Attribute{Class: 8, Code: obis.Code{0, 0, 1, 0, 0, 255}, ID: 2}
}

func breaker(method int8) Attribute {
	return Attribute{Class: 70, Code: obis.Code{0, 0, 96, 3, 10, 255}, ID: method}
}

// spaced joins hexadecimal in lines for comparison.
func spaced(lines ...string) string {
	return strings.ReplaceAll(strings.Join(lines, "\n"), " ", "")
}

func same(t *testing.T, name string, s *script, want ...string) {
	t.Helper()
	if got := spaced(s.sent...); got != spaced(want...) || len(s.answers) != 0 {
		t.Errorf("%s: sent\n%s\nwant\n%s\n%d answers not taken", name, got, spaced(want...), len(s.answers))
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	now := axdr.OctetString("\x07\xEA\x0B\x16\x07\x08\x28\x17\x00\x00\x00\x00")
	const head = "C1 01 C1 0008 0000010000FF 02 00"
	for name, c := range map[string]struct {
		answers []string
		is      error
	}{
		"done":           {[]string{"C501C100"}, nil},
		"late answers":   {[]string{"C501C200", "C501C100"}, nil},
		"denied":         {[]string{"C501C103"}, ReadWriteDenied},
		"cut short":      {[]string{"C501C1"}, ErrMalformed},
		"another form":   {[]string{"C502C10000000001"}, ErrMalformed},
		"exception":      {[]string{"D80101"}, &ExceptionError{State: 1, Service: 1}},
		"not an answer":  {[]string{"6300"}, ErrMalformed},
		"silence":        {nil, errSilence},
		"notifications…": {[]string{"0F0000000100 00", "C501C100"}, nil},
	} {
		client, s := granted(t, everything, 0, c.answers...)
		err := client.Set(t.Context(), clockObject(), now)
		var exception *ExceptionError
		if errors.As(err, &exception) {
			err = exception
		}
		if !errors.Is(err, c.is) && !reflect.DeepEqual(err, c.is) {
			t.Errorf("%s: %v", name, err)
		}
		same(t, name, s, head+"09 0C 07EA0B160708281700000000")
	}
	client, s := granted(t, Get, 0)
	if err := client.Set(t.Context(), clockObject(), now); !errors.Is(err, ErrNotGranted) || len(s.sent) != 0 {
		t.Errorf("set that is not granted: %v, %v", err, s.sent)
	}
	client, s = granted(t, Set, 0)
	if err := client.Set(t.Context(), clockObject(), axdr.Value{Tag: 99}); !errors.Is(err, axdr.ErrTag) || len(s.sent) != 0 {
		t.Errorf("set of what has no encoding: %v, %v", err, s.sent)
	}
}

func TestSetInBlocks(t *testing.T) {
	t.Parallel()
	v := axdr.OctetString("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	sent := []string{
		"C1 02 C1 0008 0000010000FF 02 00 00 00000001 0B 09 1A 414243444546474849",
		"C1 03 C1 01 00000002 11 4A4B4C4D4E4F505152535455565758595A",
	}
	client, s := granted(t, everything, 32, "C502C100000001", "C503C10000000002")
	if err := client.Set(t.Context(), clockObject(), v); err != nil {
		t.Error(err)
	}
	same(t, "two blocks", s, sent...)
	for _, a := range s.sent {
		if len(a)/2 > 32 {
			t.Errorf("%s is longer than the meter takes", a)
		}
	}

	for name, c := range map[string]struct {
		answers []string
		is      error
	}{
		"refused at the end":    {[]string{"C502C100000001", "C503C10C00000002"}, TypeUnmatched},
		"refused midway":        {[]string{"C501C103"}, ReadWriteDenied},
		"aborted midway":        {[]string{"C503C11100000001"}, LongSetAborted},
		"another block":         {[]string{"C502C100000002"}, ErrMalformed},
		"acknowledgement cut":   {[]string{"C502C1000000"}, ErrMalformed},
		"done after one block":  {[]string{"C501C100"}, ErrMalformed},
		"silence after a block": {[]string{"C502C100000001"}, errSilence},
	} {
		client, s := granted(t, everything, 32, c.answers...)
		if err := client.Set(t.Context(), clockObject(), v); !errors.Is(err, c.is) {
			t.Errorf("%s: %v", name, err)
		}
		same(t, name, s, sent[:len(s.sent)]...)
	}

	client, s = granted(t, Set, 32)
	if err := client.Set(t.Context(), clockObject(), v); !errors.Is(err, ErrNotGranted) || len(s.sent) != 0 {
		t.Errorf("blocks that are not granted: %v, %v", err, s.sent)
	}
	client, s = granted(t, everything, 16)
	if err := client.Set(t.Context(), clockObject(), v); !errors.Is(err, ErrNotGranted) || len(s.sent) != 0 {
		t.Errorf("a pdu with no room for a block: %v, %v", err, s.sent)
	}
}

func TestSetList(t *testing.T) {
	t.Parallel()
	list := []Assignment{
		{clockObject(), axdr.Unsigned(1)}, {energy(), axdr.Unsigned(2)}, {breaker(4), axdr.Enum(3)},
	}
	const head = "03 000800 00010000FF0200 0003010001 0800FF0200 00460000 60030AFF0400"
	client, s := granted(t, everything, 0, "C505C10300030C")
	results, err := client.SetList(t.Context(), list)
	if err != nil || fmt.Sprint(results) != fmt.Sprint([]error{nil, ReadWriteDenied, TypeUnmatched}) {
		t.Errorf("%v, %v", results, err)
	}
	same(t, "list", s, "C104C1"+head+"03 1101 1102 1603")

	list[0].Value = axdr.OctetString(strings.Repeat("A", 20))
	client, s = granted(t, everything, 60, "C505C1020003", "C501C200")
	results, err = client.SetList(t.Context(), list)
	if err != nil || fmt.Sprint(results) != fmt.Sprint([]error{nil, ReadWriteDenied, nil}) || len(s.sent[0]) != 2*49 || len(s.sent) != 2 {
		t.Errorf("split by the pdu: %v, %v, %v", results, err, s.sent)
	}

	client, s = granted(t, Set, 0, "C501C100", "C501C203", "C501C300")
	list[0].Value = axdr.Unsigned(1)
	results, err = client.SetList(t.Context(), list)
	if err != nil || fmt.Sprint(results) != fmt.Sprint([]error{nil, ReadWriteDenied, nil}) {
		t.Errorf("one by one: %v, %v", results, err)
	}
	same(t, "one by one", s, "C101C1 0008 0000010000FF 02 00 1101", "C101C2 0003 0100010800FF 02 00 1102", "C101C3 0046 000060030AFF 04 00 1603")

	for name, answer := range map[string]string{
		"two results": "C505C1020000", "cut short": "C505C1030000", "no count": "C505C1", "another form": "C501C100",
	} {
		client, _ := granted(t, everything, 0, answer)
		if results, err := client.SetList(t.Context(), list); !errors.Is(err, ErrMalformed) || len(results) != 0 {
			t.Errorf("%s: %v, %v", name, results, err)
		}
	}
}

// TestSetListInBlocks has a list that the meter takes only in blocks, because
// its first value alone is longer than the PDU.
func TestSetListInBlocks(t *testing.T) {
	t.Parallel()
	list := []Assignment{{clockObject(), axdr.OctetString(strings.Repeat("A", 40))}, {energy(), axdr.Unsigned(2)}}
	client, s := granted(t, everything, 45, "C502C100000001", "C504C1020003 00000002")
	results, err := client.setList(t.Context(), list)
	if err != nil || fmt.Sprint(results) != fmt.Sprint([]error{nil, ReadWriteDenied}) {
		t.Errorf("%v, %v", results, err)
	}
	same(t, "list in blocks", s,
		"C105C1 02 00080000010000FF0200 00030100010800FF0200 00 00000001 0D 02 0928"+strings.Repeat("41", 10),
		"C103C1 01 00000002 20"+strings.Repeat("41", 30)+"1102")
}

func TestActionInBlocks(t *testing.T) {
	t.Parallel()
	argument := axdr.OctetString("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	client, s := granted(t, everything, 32, "C704C100000001", "C701C1000100 1107")
	got, err := client.Action(t.Context(), breaker(1), &argument)
	if err != nil || !got.Equal(axdr.Unsigned(7)) {
		t.Errorf("%+v, %v", got, err)
	}
	same(t, "request in blocks", s,
		"C304C1 0046 000060030AFF 01 00 00000001 0C 09 1A 4142434445464748494A",
		"C306C1 01 00000002 10 4B4C4D4E4F505152535455565758595A")

	long := axdr.OctetString("ABCDEFGH")
	for name, answers := range map[string][]string{
		"by the standard": {"C702C1 00 00000001 05 000100 0908", "C702C1 01 00000002 08 4142434445464748"},
		"without result":  {"C702C1 00 00000001 04 0100 0908", "C702C1 01 00000002 08 4142434445464748"},
		"data alone":      {"C702C1 00 00000001 02 0908", "C702C1 01 00000002 08 4142434445464748"},
	} {
		client, s := granted(t, everything, 0, answers...)
		got, err := client.Action(t.Context(), breaker(1), nil)
		if err != nil || !got.Equal(long) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		same(t, name, s, "C301C1 0046 000060030AFF 01 00", "C302C1 00000001")
	}
	for name, c := range map[string]struct {
		answers []string
		is      error
	}{
		"refused in a block":    {[]string{"C702C1 01 00000001 02 0300"}, ReadWriteDenied},
		"wrong block":           {[]string{"C702C1 00 00000002 02 0001"}, ErrMalformed},
		"block cut short":       {[]string{"C702C1 00 00000001 03 0001"}, ErrMalformed},
		"whole after a block":   {[]string{"C702C1 00 00000001 02 0001", "C701C10000"}, ErrMalformed},
		"a list to one request": {[]string{"C703C1010000"}, ErrMalformed},
		"silence midway":        {[]string{"C702C1 00 00000001 02 0001"}, errSilence},
	} {
		client, _ := granted(t, everything, 0, c.answers...)
		if got, err := client.Action(t.Context(), breaker(1), nil); !errors.Is(err, c.is) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	client, _ = granted(t, everything, 32, "C701C103")
	if got, err := client.Action(t.Context(), breaker(1), &argument); !errors.Is(err, ReadWriteDenied) {
		t.Errorf("refused at the first block: %+v, %v", got, err)
	}
}

func TestActionList(t *testing.T) {
	t.Parallel()
	zero, text := axdr.Integer(0), axdr.OctetString("key")
	calls := []Call{{breaker(1), &zero}, {breaker(2), nil}, {clockObject(), &text}}
	const methods = "0046000060030AFF01 0046000060030AFF02 00080000010000FF02"
	const answer = "03 0000 0300 0001001107"
	want := []Item{{}, {Err: ReadWriteDenied}, {Value: axdr.Unsigned(7)}}
	check := func(name string, items []Item, err error) {
		t.Helper()
		if err != nil || fmt.Sprint(items) != fmt.Sprint(want) {
			t.Errorf("%s: %v, %v", name, items, err)
		}
	}
	client, s := granted(t, everything, 0, "C703C1"+answer)
	items, err := client.ActionList(t.Context(), calls)
	check("list", items, err)
	same(t, "list", s, "C303C1 03"+methods+"03 0F00 00 09036B6579")

	client, s = granted(t, everything, 0, "C702C1 00 00000001 04 03000003", "C702C1 01 00000002 06 000001001107")
	items, err = client.ActionList(t.Context(), calls)
	check("answer in blocks", items, err)
	same(t, "answer in blocks", s, "C303C1 03"+methods+"03 0F00 00 09036B6579", "C302C100000001")

	client, s = granted(t, everything, 0, "C701C10000", "C701C20300", "C701C30001001107")
	client.options.Quirks.ListMax = 1
	items, err = client.ActionList(t.Context(), calls)
	check("one by one", items, err)
	same(t, "one by one", s, "C301C10046000060030AFF01 01 0F00", "C301C20046000060030AFF02 00", "C301C300080000010000FF02 01 09036B6579")

	client, s = granted(t, everything, 47, "C704C100000001", "C703C1"+answer)
	items, err = client.actList(t.Context(), append(calls[:2:2], Call{clockObject(), &axdr.Value{Tag: axdr.TagOctetString, Str: "a longer key"}}))
	check("in blocks", items, err)
	same(t, "in blocks", s, "C305C1 03"+methods+"00 00000001 08 03 0F00 00 090C6120", "C306C1 01 00000002 0A 6C6F6E676572206B6579")

	for name, a := range map[string]string{
		"another form": "C701C10000", "two results": "C703C1020000 0000", "cut short": "C703C1030000 03", "no count": "C703C1",
	} {
		client, _ := granted(t, everything, 0, a)
		if items, err := client.ActionList(t.Context(), calls); !errors.Is(err, ErrMalformed) || len(items) != 0 {
			t.Errorf("%s: %v, %v", name, items, err)
		}
	}
	client, _ = granted(t, everything, 0)
	client.open = false
	if _, err := client.ActionList(t.Context(), calls); !errors.Is(err, ErrNotAssociated) {
		t.Errorf("without an association: %v", err)
	}
}

func TestGetList(t *testing.T) {
	t.Parallel()
	list := []Attribute{clockObject(), energy(), breaker(4)}
	const request = "03 00080000010000FF0200 00030100010800FF0200 0046000060030AFF0400"
	want := []Item{{Value: axdr.Unsigned(5)}, {Err: ObjectUndefined}, {Value: axdr.Enum(6)}}
	for name, c := range map[string]struct{ answers, sent []string }{
		"whole":     {[]string{"C403C1 03 001105 0104 001606"}, nil},
		"in blocks": {[]string{"C402C1 00 00000001 00 05 0300110501", "C402C1 01 00000002 00 04 04001606"}, []string{"C002C100000001"}},
	} {
		for by, get := range map[string]func(*Client) ([]Item, error){
			"get":  func(c *Client) ([]Item, error) { return c.GetList(t.Context(), list) },
			"read": func(c *Client) ([]Item, error) { return c.ReadList(t.Context(), list) },
		} {
			client, s := granted(t, everything, 0, c.answers...)
			items, err := get(client)
			if err != nil || fmt.Sprint(items) != fmt.Sprint(want) {
				t.Errorf("%s %s: %v, %v", by, name, items, err)
			}
			same(t, by+" "+name, s, append([]string{"C003C1" + request}, c.sent...)...)
		}
	}
	for name, answer := range map[string]string{
		"two answers": "C403C1 02 001105 0104", "four answers": "C403C1 04 001105 0104 001606 00", "cut short": "C403C1 03 001105 0104 0016",
		"no count": "C403C1", "not a list": "C401C100 1105", "nothing": "C403",
	} {
		client, _ := granted(t, everything, 0, answer)
		if items, err := client.GetList(t.Context(), list); !errors.Is(err, ErrMalformed) || len(items) != 0 {
			t.Errorf("%s: %v, %v", name, items, err)
		}
	}
	client, _ := granted(t, Get, 0)
	if _, err := client.GetList(t.Context(), list); !errors.Is(err, ErrNotGranted) {
		t.Errorf("lists that are not granted: %v", err)
	}
}

// TestListsAreSplit counts the attributes of each request.
func TestListsAreSplit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		services Conformance
		pdu      uint16
		most     int
		want     string // attributes in each request; 0 is a get of one
	}{
		"all at once":     {everything, 0, 0, "[10]"},
		"by the model":    {everything, 0, 4, "[4 4 2]"},
		"by the pdu":      {everything, 64, 0, "[6 4]"},
		"just as long":    {everything, 104, 0, "[10]"},
		"an octet less":   {everything, 103, 0, "[9 0]"},
		"no lists":        {Get, 0, 0, "[0 0 0 0 0 0 0 0 0 0]"},
		"model takes one": {everything, 0, 1, "[0 0 0 0 0 0 0 0 0 0]"},
	} {
		var attributes []Attribute
		for i := range 10 {
			attributes = append(attributes, Attribute{Class: 3, Code: obis.Code{1, 0, byte(i), 8, 0, 255}, ID: 2})
		}
		client, _ := granted(t, c.services, c.pdu)
		client.options.Quirks.ListMax = c.most
		m := &lists{}
		client.transport = m
		items, err := client.ReadList(t.Context(), attributes)
		if err != nil || fmt.Sprint(m.counts) != c.want || len(items) != 10 {
			t.Errorf("%s: requests of %v, want %s; %d items, %v", name, m.counts, c.want, len(items), err)
		}
		for i, item := range items {
			if !item.Value.Equal(axdr.Unsigned(uint8(i))) {
				t.Errorf("%s: item %d is %+v", name, i, item)
			}
		}
	}
}

func TestListsThatAreTooLongAreHalved(t *testing.T) {
	t.Parallel()
	for _, refusal := range []string{"D80204", "C401C10B", "C402C1010000000101 10"} {
		var attributes []Attribute
		for i := range 10 {
			attributes = append(attributes, Attribute{Class: 3, Code: obis.Code{1, 0, byte(i), 8, 0, 255}, ID: 2})
		}
		client, _ := granted(t, everything, 0)
		m := &lists{most: 3, refusal: unhex(t, strings.ReplaceAll(refusal, "C401C10B", "C401C1010B"))}
		client.transport = m
		client.options.InvokeID = 1
		for range 2 {
			items, err := client.ReadList(t.Context(), attributes)
			if err != nil || len(items) != 10 {
				t.Errorf("%s: %v, %v", refusal, items, err)
			}
		}
		if got := fmt.Sprint(m.counts); got != "[10 5 3 3 3 0 3 3 3 0]" {
			t.Errorf("%s: requests of %v", refusal, got)
		}
	}
}

func TestAppendGetListAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, 64)
	list := []Attribute{clockObject(), energy(), breaker(4)}
	if n := testing.AllocsPerRun(100, func() { AppendGetList(buf, 1, list) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestEntries(t *testing.T) {
	t.Parallel()
	a := Attribute{Class: 7, Code: obis.Code{1, 0, 99, 1, 0, 255}, ID: 2}
	client, s := granted(t, everything, 0, "C401C100 0100", "C401C200 0100")
	for _, e := range []Entries{{From: 2, To: 0x01020304, FirstColumn: 5, LastColumn: 0x0607}, {From: 1}} {
		if v, err := client.GetEntries(t.Context(), a, e); err != nil || v.Tag != axdr.TagArray {
			t.Errorf("%+v, %v", v, err)
		}
	}
	same(t, "entries", s,
		"C001C1 0007 0100630100FF 02 01 02 0204 0600000002 0601020304 120005 120607",
		"C001C2 0007 0100630100FF 02 01 02 0204 0600000001 0600000000 120001 120000")
}

// FuzzServices feeds two answers to each service. What comes out is never more
// than came in, and nothing comes of an answer to something else.
func FuzzServices(f *testing.F) {
	for i, seed := range []string{
		"C501C100", "C502C100000001", "C505C1020003", "C504C102000300000002", "C701C1000100 1107", "C704C100000001",
		"C703C1020000 0300", "C702C1 00 00000001 04 0100 0908", "C403C1 02 001105 0104", "C402C1 00 00000001 00 05 0300110501",
		"DAC000000100 00 02 00 1105 02 0103 0100", "0C 02 001105 0104", "0D 02 00 0103", "E0 81 0001 0000 04 C501C100",
	} {
		f.Add(byte(i), unhex(f, strings.ReplaceAll(seed, " ", "")), unhex(f, "C503C10000000002"))
	}
	list := []Attribute{clockObject(), energy()}
	zero := axdr.OctetString(strings.Repeat("A", 40))
	f.Fuzz(func(t *testing.T, which byte, first, second []byte) {
		c, s := granted(t, everything|Access|GeneralBlockTransfer, 70)
		s.answers = [][]byte{first, second}
		var items []Item
		var err error
		switch which % 7 {
		case 0:
			err = c.Set(t.Context(), energy(), zero)
		case 1:
			var results []error
			results, err = c.SetList(t.Context(), []Assignment{{energy(), zero}, {clockObject(), axdr.Null()}})
			if err == nil && len(results) != 2 {
				t.Fatalf("%d results", len(results))
			}
		case 2:
			var v axdr.Value
			v, err = c.Action(t.Context(), breaker(1), &zero)
			items = []Item{{Value: v}}
		case 3:
			items, err = c.ActionList(t.Context(), []Call{{breaker(1), nil}, {breaker(2), &zero}})
		case 4:
			items, err = c.GetList(t.Context(), list)
		case 6:
			items, err = c.AccessWith(t.Context(), []AccessItem{{Kind: AccessGet, Attribute: energy(), Entries: &Entries{From: 1}}}, AccessOptions{SelfDescriptive: true})
		case 5:
			items, err = c.Access(t.Context(), []AccessItem{{Kind: AccessGet, Attribute: energy()}, {Kind: AccessSet, Attribute: energy(), Value: axdr.Unsigned(1)}})
		}
		if err != nil {
			return
		}
		var out []byte
		for _, item := range items {
			if b, err := item.Value.AppendBinary(nil); err == nil && item.Value.Tag != axdr.TagNull {
				out = append(out, b...)
			}
		}
		if len(out) > len(first)+len(second) {
			t.Fatalf("%x, %x gave %v", first, second, items)
		}
		if !bytes.Contains([]byte("\xC4\xC5\xC7\xDA\xE0\x0F\x18\xC2\x0C\x0D"), first[:1]) {
			t.Fatalf("%x was taken for an answer", first)
		}
	})
}
