package dlmstest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/security"
)

func TestShortNames(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []dlms.Mechanism{0, dlms.LLS, dlms.HLSMD5, dlms.HLSGMAC} {
		for _, policy := range []security.Policy{0, security.AuthenticatedEncrypted} {
			s, signing := meterSecurity(t, security.Suite0)
			m := full(dlmstest.Options{
				Clients: map[uint16]dlmstest.Login{30: {Mechanism: uint8(mechanism), Secret: gurux, Conformance: dlmstest.ShortNames, Policy: policy}},
				MaxPDU:  200, Security: s,
			})
			o := dlms.Options{Mechanism: mechanism, Password: []byte(gurux), ShortNames: true, Conformance: dlms.DefaultShortNameConformance}
			o.Security = clientSecurity(s, signing, policy, &security.Memory{})
			c := connectTo(m, 30, o)
			granted, err := c.Associate(t.Context())
			if err != nil || granted.VAA != 0xFA00 {
				t.Fatalf("%d, %v: %+v, %v", mechanism, policy, granted, err)
			}
			energy := dlms.Attribute{Class: 3, Code: code("1-0:1.8.0"), ID: 2}
			if v, err := c.Get(t.Context(), energy); err != nil || v.Num != 12345 {
				t.Errorf("register: %+v, %v", v, err)
			}
			all, err := c.Get(t.Context(), dlms.Attribute{Class: 7, Code: code("1-0:99.1.0"), ID: 2})
			if err != nil || len(all.Items) != 200 {
				t.Errorf("profile: %d rows, %v", len(all.Items), err)
			}
			some, err := c.GetEntries(t.Context(), dlms.Attribute{Class: 7, Code: code("1-0:99.1.0"), ID: 2}, dlms.Entries{From: 3, To: 5})
			if err != nil || len(some.Items) != 3 || some.Items[0].Items[1].Num != 2 {
				t.Errorf("entries: %+v, %v", some, err)
			}
			text := dlms.Attribute{Class: 1, Code: code("0-0:96.13.0"), ID: 2}
			if err := c.Set(t.Context(), text, axdr.OctetString("abc")); err != nil {
				t.Errorf("set: %v", err)
			}
			if _, err := c.Action(t.Context(), breaker(1), ptr(axdr.Integer(0))); err != nil {
				t.Errorf("disconnect: %v", err)
			}
			items, err := c.ReadList(t.Context(), []dlms.Attribute{energy, text, breaker(2), {Class: 3, Code: code("1-0:9.9.9"), ID: 2}})
			if err != nil || len(items) != 4 || items[1].Value.Str != "abc" || items[2].Value.Num != 0 || !errors.Is(items[3].Err, dlms.ObjectUndefined) {
				t.Errorf("list: %+v, %v", items, err)
			}
			if err := c.Release(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestShortNamesByOctets pins what the meter says without the client's
// decoders.
func TestShortNamesByOctets(t *testing.T) {
	t.Parallel()
	session := full(dlmstest.Options{Clients: map[uint16]dlmstest.Login{30: {Conformance: dlmstest.ShortNames}}}).NewSession()
	for _, c := range [][2]string{
		{"601DA109060760857405080102BE10040E01000000065F1F0400 1C0320 04B0", "6129A109060760857405080102A203020100A305A103020100BE10040E0800065F1F0400 180220 0400FA00"},
		{"05 01 02 0208", "0C 01 00 0600003039"}, // the second object after the association
		{"05 02 02 0200 02 F908", "0C 02 00 0906 0100010800FF 01 04"},
		{"06 01 02 0908 01 0903 616263", "0D 01 00"},
		{"06 01 02 0208 01 1100", "0D 01 01 03"},
		{"05 01 02 0908", "0C 01 00 0903 616263"},
		{"05 01 04 0620 00 0F00", "0C 01 00 00"}, // disconnect
		{"05 01 02 0608", "0C 01 00 0300"},
		{"05 01 05 0001", "0C 01 01 13"},
		{"C001C1 0003 0100010800FF 02 00", "D80202"},
	} {
		out := session.Answer(30, octets(t, c[0]))
		if want := "[" + strings.ToLower(strings.ReplaceAll(c[1], " ", "")) + "]"; fmt.Sprintf("%x", out) != want {
			t.Errorf("%s was answered %x, want %s", c[0], out, want)
		}
	}
}
