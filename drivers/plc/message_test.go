package plc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenMessages are octet by octet as base nodes have them on the wire.
func goldenMessages() map[string]message {
	return map[string]message{
		"01 0007 0001 0d 5a495630303334373034373035 0080e1000007": {
			kind: msgNewDevice, device: 7, capabilities: 1, name: "ZIV0034704705", eui: EUI48{0, 0x80, 0xE1, 0, 0, 7},
		},
		"01 1234 0000 00 010203040506": {kind: msgNewDevice, device: 0x1234, eui: EUI48{1, 2, 3, 4, 5, 6}},
		"02 0007":                      {kind: msgRemoveDevice, device: 7},
		"03":                           {kind: msgStartReporting},
		"04 ffff":                      {kind: msgDeleteDevice, device: 0xFFFF},
		"05 0100":                      {kind: msgEnableAutoClose, device: 0x100},
		"06 0100":                      {kind: msgDisableAutoClose, device: 0x100},
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	for text, want := range goldenMessages() {
		b := unhex(t, string(bytes.ReplaceAll([]byte(text), []byte(" "), nil)))
		got, err := parseMessage(b)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v\nwant %+v", text, got, err, want)
		}
		if again, err := want.append(nil); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%+v is written %x, %v\nwant %x", want, again, err, b)
		}
		for n := range b { // cut short at every length
			if _, err := parseMessage(b[:n]); !errors.Is(err, errShortMessage) {
				t.Errorf("%x, the first %d octets of %s: %v", b[:n], n, text, err)
			}
		}
		if _, err := parseMessage(append(b, 0)); !errors.Is(err, errLongMessage) {
			t.Errorf("%s and an octet more: %v", text, err)
		}
	}
	for _, s := range []string{"00", "07", "ff0001"} {
		if _, err := parseMessage(unhex(t, s)); !errors.Is(err, errMessage) {
			t.Errorf("%s: %v", s, err)
		}
	}
	if _, err := (message{kind: msgNewDevice, name: string(make([]byte, 256))}).append(nil); !errors.Is(err, errName) {
		t.Errorf("a name of 256 octets: %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	for text := range goldenMessages() {
		f.Add(unhex(f, string(bytes.ReplaceAll([]byte(text), []byte(" "), nil))))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err != nil {
			return
		}
		again, err := m.append(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x is %+v, which is written %x, %v", b, m, again, err)
		}
	})
}

func TestEUI48(t *testing.T) {
	t.Parallel()
	want := EUI48{0, 0x80, 0xE1, 0xAB, 0, 7}
	for _, s := range []string{"0080E1AB0007", "0080e1ab0007", "00:80:E1:AB:00:07", "00-80-e1-ab-00-07"} {
		if got, ok := parseEUI48(s); !ok || got != want {
			t.Errorf("%s: %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "0080E1AB00", "0080E1AB000711", "ZIV003470470"} {
		if got, ok := parseEUI48(s); ok {
			t.Errorf("%q: %v", s, got)
		}
	}
	if s := want.String(); s != "00:80:E1:AB:00:07" || (EUI48{}).String() != "" {
		t.Errorf("%s, %q", s, EUI48{}.String())
	}
}

func TestEnvelope(t *testing.T) {
	t.Parallel()
	e := Envelope(3, []byte{0xA0, 0x0B})
	sealed, err := e.Seal([]byte{0xFF}, []byte{0xC0, 1, 0xC1})
	if want := unhex(t, "ffe60302a00bc001c1"); err != nil || !bytes.Equal(sealed, want) {
		t.Errorf("%x, %v, want %x", sealed, err, want)
	}
	whole := unhex(t, "e70302a00bc401c100")
	if apdu, ok := e.Open(whole); !ok || !bytes.Equal(apdu, whole[5:]) {
		t.Errorf("%x, %v", apdu, ok)
	}
	for n := range 5 {
		if _, ok := e.Open(whole[:n]); ok {
			t.Errorf("%x passes for an answer", whole[:n])
		}
	}
	for _, s := range []string{"e60302a00bc401c100", "e70202a00bc401c100", "e70302a00cc401c100", "e70301a0c401c100", "c401c100"} {
		if _, ok := e.Open(unhex(t, s)); ok {
			t.Errorf("%s passes for an answer of the node", s)
		}
	}
	if name := GatewayNode(3, []byte{0xA0, 0x0B}); !reflect.DeepEqual([]byte(name), []byte{3, 0xA0, 0x0B}) {
		t.Errorf("%x", name)
	}
}
