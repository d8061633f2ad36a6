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
		{"601DA109060760857405080102BE10040E01000000065F1F0400 1C0320 04B0", "6129A109060760857405080102A203020100A305A103020100BE10040E0800065F1F0400 1C0220 0400FA00"},
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

// TestBlocksByOctets pins what the meter says to blocks, right and wrong ones.
func TestBlocksByOctets(t *testing.T) {
	t.Parallel()
	session := full(dlmstest.Options{Clients: everyone(), Security: dlmstest.Security{}}).NewSession()
	const (
		text   = "0001 0000600D00FF 02"
		script = "0009 00000A006AFF 01"
	)
	for _, c := range [][2]string{
		{"6033A1090607608574050801018A0207808B0760857405080201AC0780054775727578BE10040E01000000065F1F0400 001E5D 0040", "6129A109060760857405080101A203020100A305A103020100BE10040E0800065F1F0400 001E5D 04000007"},
		{"C101C1" + text + "00 0903616263", "C501C100"},
		{"C101C1" + text + "00 1105", "C501C10C"},
		{"C102C2" + text + "00 00 00000001 03 090561", "C502C200000001"},
		{"C103C2 00 00000002 02 6263", "C502C200000002"},
		{"C103C2 01 00000003 02 6465", "C503C20000000003"},
		{"C103C2 01 00000004 02 6465", "C503C21200000004"},
		{"C102C2" + text + "00 00 00000001 02 0905", "C502C200000001"},
		{"C103C2 01 00000003 02 6465", "C503C21300000003"},
		{"C104C3 02" + text + "00" + text + "01 01 00 02 0903616263 0901 61", "C505C3020003"}, // a selection is refused
		{"C105C4 01" + text + "00 00 00000001 03 010903", "C502C400000001"},
		{"C103C4 01 00000002 03 616263", "C504C4010000000002"},
		{"C304C5" + script + "00 00000001 01 12", "C704C500000001"},
		{"C306C5 01 00000002 02 0001", "C701C50000"},
		{"C306C5 01 00000003 02 0001", "C701C51000"},
		{"C304C5" + script + "00 00000001 01 12", "C704C500000001"},
		{"C306C5 01 00000009 02 0001", "C701C50E00"},
		{"C305C6 02" + script + script + "00 00000001 04 02120001", "C704C600000001"},
		{"C306C6 01 00000002 03 120002", "C703C6 02 0000 0000"},
		{"C302C7 00000001", "C701C71000"},
		{"C002C8 00000001", "C402C801000000000110"},
		{"C001C9 0007 0100630100FF 02 00", "C402C900 00000001 00 34"},
		{"C002C9 00000001", "C402C900 00000002 00 34"},
		{"C002C9 00000001", "C402C901 00000000 01 13"},
		{"C003CA 01 0003 0100010800FF 02 00", "C403CA01000600003039"},
		{"C001CB 0003 0100010800FF", "D80202"},
		{"D9C000000100 00 00", "DAC000000100000000"},
		{"6203800100", "6303800100"},
		{"C001CB 0003 0100010800FF 02 00", "D80101"},
	} {
		out := session.Answer(17, octets(t, c[0]))
		want := strings.ToLower(strings.ReplaceAll(c[1], " ", ""))
		if len(out) != 1 || len(out[0]) > 64 || !strings.HasPrefix(fmt.Sprintf("%x", out[0]), want) {
			t.Errorf("%s was answered %x, want %s", c[0], out, want)
		}
	}
}
