package dlms

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

func TestAccess(t *testing.T) {
	t.Parallel()
	profile := Attribute{Class: 7, Code: obis.Code{1, 0, 99, 1, 0, 255}, ID: 2}
	list := []AccessItem{
		{Kind: AccessGet, Attribute: energy()},
		{Kind: AccessSet, Attribute: clockObject(), Value: axdr.Unsigned(5)},
		{Kind: AccessAction, Attribute: breaker(1), Value: axdr.Integer(0)},
		{Kind: AccessGet, Attribute: profile, Rows: &Range{From: DateTime{Year: 1}, To: DateTime{Year: 2}}},
	}
	client, s := granted(t, Access, 0, "DAC0000001 00 00 04 06000004D2 00 00 0100 04 0100 0200 0301 0400")
	items, err := client.Access(t.Context(), list)
	want := []Item{{Value: axdr.DoubleLongUnsigned(1234)}, {}, {Err: HardwareFault}, {Value: axdr.Array()}}
	if err != nil || fmt.Sprintf("%#v", items) != fmt.Sprintf("%#v", want) {
		t.Errorf("%v, %v; want %v", items, err, want)
	}
	same(t, "access", s, "D9 C0000001 00 04"+
		"01 0003 0100010800FF 02"+"02 0008 0000010000FF 02"+"03 0046 000060030AFF 01"+
		"04 0007 0100630100FF 02 01 0204 0204 120008 09060000010000FF 0F02 120000"+
		"090C 000100000000000000000000 090C 000200000000000000000000 0100"+
		"04 00 1105 0F00 00")
}

// TestAccessWith has the answer repeat the questions, and sets rows.
func TestAccessWith(t *testing.T) {
	t.Parallel()
	profile := Attribute{Class: 7, Code: obis.Code{1, 0, 99, 1, 0, 255}, ID: 2}
	list := []AccessItem{
		{Kind: AccessSet, Attribute: profile, Entries: &Entries{From: 1, To: 2}, Value: axdr.Array()},
		{Kind: AccessGet, Attribute: energy()},
	}
	const asked = "02 05 0007 0100630100FF 02 02 0204 0600000001 0600000002 120001 120000 01 0003 0100010800FF 02"
	o := AccessOptions{SelfDescriptive: true, BreakOnError: true}
	client, s := granted(t, Access, 0, "DAF0000001 00 01 "+asked+" 02 00 00 02 0203 01FA")
	items, err := client.AccessWith(t.Context(), list, o)
	if err != nil || !errors.Is(items[0].Err, ReadWriteDenied) || !errors.Is(items[1].Err, OtherReason) {
		t.Errorf("%v, %v", items, err)
	}
	same(t, "access", s, "D9 F0000001 00 "+asked+" 02 0100 00")
	client, _ = granted(t, Access, 0, "DAF0000001 00 01 "+strings.Replace(asked, "0600000002", "0600000003", 1)+" 02 00 00 02 0203 01FA")
	if items, err := client.AccessWith(t.Context(), list, o); !errors.Is(err, ErrMalformed) {
		t.Errorf("other questions: %v, %v", items, err)
	}
	whole := unhex(t, "DAF0000001 00 01 "+asked+" 02 00 00 02 0203 01FA")
	for n := 1; n < len(whole); n++ {
		client, _ := granted(t, Access, 0, fmt.Sprintf("%x", whole[:n]))
		if items, err := client.AccessWith(t.Context(), list, o); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut at %d: %v, %v", n, items, err)
		}
	}
}

// TestSetRows has set-requests with a selection, whole and in blocks.
func TestSetRows(t *testing.T) {
	t.Parallel()
	profile := Attribute{Class: 7, Code: obis.Code{1, 0, 99, 1, 0, 255}, ID: 2}
	client, s := granted(t, Set, 0, "C501C100", "C501C203")
	if err := client.SetEntries(t.Context(), profile, Entries{From: 1, To: 2, FirstColumn: 3, LastColumn: 3}, axdr.Array()); err != nil {
		t.Error(err)
	}
	if err := client.SetRange(t.Context(), profile, Range{From: DateTime{Year: 1}, To: DateTime{Year: 2}}, axdr.Array()); !errors.Is(err, ReadWriteDenied) {
		t.Error(err)
	}
	same(t, "set", s, "C101C1 0007 0100630100FF 02 01 02 0204 0600000001 0600000002 120003 120003 0100",
		"C101C2 0007 0100630100FF 02 01 01 0204 0204 120008 09060000010000FF 0F02 120000"+
			"090C 000100000000000000000000 090C 000200000000000000000000 0100 0100")
	client, s = granted(t, Set|BlockTransferSet, 53, "C502C100000001", "C503C10000000002")
	if err := client.SetEntries(t.Context(), profile, Entries{From: 1, To: 2}, axdr.OctetString(strings.Repeat("a", 20))); err != nil {
		t.Error(err)
	}
	const head = " 0007 0100630100FF 02 01 02 0204 0600000001 0600000002 120001 120000 "
	same(t, "blocks", s, "C102C1"+head+"00 00000001 0D 0914"+strings.Repeat("61", 11), "C103C1 01 00000002 09"+strings.Repeat("61", 9))
}

func TestAccessFails(t *testing.T) {
	t.Parallel()
	list := []AccessItem{{Kind: AccessGet, Attribute: energy()}}
	const good = "DAC0000001 0C 07EA0B160708281700000000 00 01 1105 01 0100"
	client, _ := granted(t, Access, 0, good)
	if items, err := client.Access(t.Context(), list); err != nil || !items[0].Value.Equal(axdr.Unsigned(5)) {
		t.Errorf("with a date-time: %v, %v", items, err)
	}
	whole := unhex(t, good)
	for n := 1; n < len(whole); n++ {
		client, _ := granted(t, Access, 0, fmt.Sprintf("%x", whole[:n]))
		if items, err := client.Access(t.Context(), list); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut at %d: %v, %v", n, items, err)
		}
	}
	for name, answer := range map[string]string{
		"two values":     "DAC0000001 00 00 02 1105 1105 01 0100",
		"two results":    "DAC0000001 00 00 01 1105 02 0100 0100",
		"another result": "DAC0000001 00 00 01 1105 01 0200",
		"questions":      "DAC0000001 00 01 01 0003 0100010800FF 02 01 1105 01 0100",
	} {
		client, _ := granted(t, Access, 0, answer)
		if items, err := client.Access(t.Context(), list); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", name, items, err)
		}
	}
	client, s := granted(t, Get, 0)
	if _, err := client.Access(t.Context(), list); !errors.Is(err, ErrNotGranted) || len(s.sent) != 0 {
		t.Errorf("not granted: %v", err)
	}
	client, s = granted(t, Access, 0)
	if _, err := client.Access(t.Context(), []AccessItem{{Kind: AccessSet, Value: axdr.Value{Tag: 99}}}); !errors.Is(err, axdr.ErrTag) || len(s.sent) != 0 {
		t.Errorf("value without an encoding: %v", err)
	}
}

// TestAnswersCutShort cuts every kind of answer at every length. A cut answer
// is never taken for a whole one.
func TestAnswersCutShort(t *testing.T) {
	t.Parallel()
	zero := axdr.Integer(0)
	for answer, ask := range map[string]func(*Client) error{
		"C501C100": func(c *Client) error { return c.Set(t.Context(), energy(), zero) },
		"C505C1020003": func(c *Client) error {
			_, err := c.SetList(t.Context(), []Assignment{{energy(), zero}, {energy(), zero}})
			return err
		},
		"C701C1000100 1107": func(c *Client) error { _, err := c.Action(t.Context(), breaker(1), nil); return err },
		"C703C1020000 0001001107": func(c *Client) error {
			_, err := c.ActionList(t.Context(), []Call{{breaker(1), nil}, {breaker(2), &zero}})
			return err
		},
		"C403C102001105001606": func(c *Client) error { _, err := c.GetList(t.Context(), []Attribute{energy(), energy()}); return err },
	} {
		whole := unhex(t, answer)
		for n := 1; n <= len(whole); n++ {
			client, _ := granted(t, everything, 0, fmt.Sprintf("%x", whole[:n]))
			err := ask(client)
			if n == len(whole) || answer == "C701C1000100 1107" && n == len("C701C100")/2 { // some meters say no more than that
				if err != nil {
					t.Errorf("%x: %v", whole[:n], err)
				}
				continue
			}
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%x: %v", whole[:n], err)
			}
		}
	}
}
