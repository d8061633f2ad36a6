package dlms

import (
	"errors"
	"fmt"
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
