package dlmstest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/dlms/security"
)

// asks has clients of a connection ask in turn, and looks at the answers: a
// part of each, "" for none.
type ask struct {
	client     uint16
	apdu, want string
}

func askAll(t *testing.T, m *dlmstest.Meter, asks []ask) {
	t.Helper()
	s := m.NewSession()
	for n, a := range asks {
		got := ""
		for _, out := range s.Answer(a.client, octets(t, a.apdu)) {
			got += fmt.Sprintf("%x", out)
		}
		want := strings.ToLower(strings.ReplaceAll(a.want, " ", ""))
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%d: client %d: %s was answered %q, want %q", n, a.client, a.apdu, got, want)
		}
	}
}

const (
	hello     = "601DA109060760857405080101BE10040E01000000065F1F0400FFFFFFFFFF"
	getSerial = "C001C1 0001 0000600100FF 02 00"
	setText   = "C101C1 0001 0000600D00FF 02 00 09 01 41"
	getText   = "C001C1 0001 0000600D00FF 02 00"
	refusedAt = "D80101"
)

// TestRefusedAssociations has clients ask for what they do not get.
func TestRefusedAssociations(t *testing.T) {
	t.Parallel()
	m := full(dlmstest.Options{Clients: map[uint16]dlmstest.Login{
		16: {}, 17: {Mechanism: 1, Secret: gurux}, 18: {Mechanism: 3, Secret: gurux}, 30: {Conformance: dlmstest.ShortNames},
	}})
	lls := func(secret string) string {
		return "6036A1090607608574050801018A0207808B0760857405080201AC0A8008" + secret + "BE10040E01000000065F1F0400007E1F04B0"
	}
	refusal := func(diagnostic string) string { return "A203020101 A305A1030201" + diagnostic }
	askAll(t, m, []ask{
		{16, getSerial, refusedAt},
		{16, "6203800100", refusedAt},
		{16, "6021 80020784 A109060760857405080101 BE10040E01000000065F1F0400FFFFFFFFFF", "A203020100"},
		{16, "6021 80020640 A109060760857405080101 BE10040E01000000065F1F0400FFFFFFFFFF", "A203020101 A305A203020102"},
		{16, "601DA109060760857405080102BE10040E01000000065F1F0400FFFFFFFFFF", refusal("02")},
		{16, "601DA109060760857405080103BE10040E01000000065F1F0400FFFFFFFFFF", refusal("02")},
		{30, hello, refusal("02")},
		{99, hello, refusal("01")},
		{17, hello, refusal("0E")},
		{17, lls("3132333435363738"), refusal("0D")},
		{18, lls("3132333435363738"), refusal("0B")},
		{16, "601DA109060760857405080101BE10040E01000000055F1F0400FFFFFFFFFF", "0E010601"},
		{16, "601DA109060760857405080101BE10040E01000000065F1F0400000000FFFF", "0E010602"},
		{16, "601DA109060760857405080101BE10040E01000000065F1F0400FFFFFF000B", "0E010603"},
		{16, "601CA109060760857405080101BE0F040D01000000065F0400FFFFFFFFFF", "A203020100"}, // without 1F
		{16, hello, "A203020100"},
		{16, hello, "A203020100"},
		{16, getSerial, "C401C100 0904 47524731"},
		{17, getSerial, refusedAt},
		{16, "6203800100", "6303800100"},
		{16, getSerial, refusedAt},
		{16, hello, "A203020100"},
		{16, "6215 800100 BE10040E01000000065F1F0400FFFFFFFFFF", "BE10040E0800065F1F04"},
		{16, hello, "A203020100"},
		{16, "7700", "D80202"},
		{16, "C0", "D80202"},
		{16, "C009C1", "D80202"},
		{16, "0100", "D80202"},
		{16, "05010200FA", "D80202"},
	})
}

// TestUnconfirmedServices has a client ask for no answer.
func TestUnconfirmedServices(t *testing.T) {
	t.Parallel()
	m := full(dlmstest.Options{Clients: map[uint16]dlmstest.Login{16: {}}})
	askAll(t, m, []ask{
		{16, hello, "A203020100"},
		{16, strings.Replace(setText, "C101C1", "C10181", 1), ""},
		{16, getText, "C401C100090141"},
		{16, "C30181 0046 000060030AFF 01 01 0F00", ""},
		{16, "C001C1 0046 000060030AFF 02 00", "C401C1000300"},
		{16, "D980000001 00 01 02 0001 0000600D00FF 02 01 090142", ""},
		{16, getText, "C401C100090142"},
		{16, "C00181 0001 0000600D00FF 02 00", "C4018100090142"}, // a GET is always answered
	})
}

// TestPreEstablished has clients that do not ask for an association.
func TestPreEstablished(t *testing.T) {
	t.Parallel()
	s, _ := meterSecurity(t, security.Suite0)
	title := security.Title([]byte("Gurux123"))
	m := full(dlmstest.Options{Security: s, Clients: map[uint16]dlmstest.Login{
		102: {PreEstablished: true, Conformance: dlmstest.Reading, ReadOnly: true}, 103: {PreEstablished: true, Conformance: dlmstest.ShortNames}, 16: {},
		104: {PreEstablished: true, Policy: security.AuthenticatedEncrypted, Title: title},
	}})
	askAll(t, m, []ask{
		{102, getSerial, "C401C100 0904 47524731"},
		{102, setText, "D80202"},
		{102, "6203800100", refusedAt},
		{102, getSerial, "C401C100"},
		{16, getSerial, refusedAt},
	})
	askAll(t, m, []ask{{103, "050102FA08", "0C0100"}, {103, getSerial, "D80202"}})
	askAll(t, m, []ask{{104, getSerial, refusedAt}})
	sender := security.Sender{
		Suite: s.Suite, Policy: security.AuthenticatedEncrypted, Title: title, Keys: s.Keys,
		Counter: security.NewCounter(&security.Memory{}, title, s.Keys.Encryption, 1),
	}
	for _, general := range []bool{false, true} {
		sent, err := sender.Protect(nil, octets(t, getSerial), security.Unicast, general)
		if err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{false: "CC", true: "DB084142434445464748"}[general]
		askAll(t, m, []ask{{104, fmt.Sprintf("%x", sent), want}})
	}
}

// TestSelections selects rows as clients may.
func TestSelections(t *testing.T) {
	t.Parallel()
	m := full(dlmstest.Options{Clients: map[uint16]dlmstest.Login{16: {}}})
	date := func(quarters int) string {
		return fmt.Sprintf("090c%x", dlmstest.DateTime(start().Add(time.Duration(quarters)*15*time.Minute)))
	}
	const open, wild = "090C FFFF FF FF FF FF FF FF FF 8000 FF", "090C 07EA 03 FF FF 00 00 00 FF 8000 00"
	profile := "C001C1 0007 0100630100FF 02 01 "
	column := func(class, code, id string) string { return "0204 12" + class + "0906" + code + "0F" + id + "120000" }
	byClock, byEnergy := column("0008", "0000010000FF", "02"), column("0003", "0100010800FF", "02")
	rows := func(n string) string { return "C401C100 01" + n }
	askAll(t, m, []ask{
		{16, hello, "A203020100"},
		{16, profile + "01 0204" + byClock + date(3) + date(5) + "0100", rows("03") + "0202" + date(3)},
		{16, profile + "01 0204" + byClock + strings.Replace(date(3), "090c", "19", 1) + strings.Replace(date(5), "090c", "19", 1) + "0100", rows("03")},
		{16, profile + "01 0204" + byClock + date(5) + date(3) + "0100", rows("00")},
		{16, profile + "01 0204" + byClock + open + date(5) + "0100", rows("06")},
		{16, profile + "01 0204" + byClock + wild + date(1) + "0100", rows("02")},
		{16, profile + "01 0204" + byClock + date(198) + open + "0100", rows("02")},
		{16, profile + "01 0204" + byClock + date(300) + date(400) + "0100", rows("00")},
		{16, profile + "01 0204" + byClock + date(3) + date(5) + "0101" + byEnergy, rows("03") + "0201 0600000003 0201"},
		{16, profile + "01 0204" + byEnergy + "0600000003 0600000004" + "0100", rows("02") + "0202" + date(3)},
		{16, profile + "01 0204" + byEnergy + "120003 1103" + "0100", rows("01")},
		{16, profile + "01 0204" + byEnergy + date(3) + date(4) + "0100", "C401C1010C"},
		{16, profile + "01 0204" + byClock + "0901 00" + date(4) + "0100", "C401C1010C"},
		{16, profile + "02 0204 0600000001 0600000002 120001 120000", rows("02") + "0202" + date(0)},
		{16, profile + "02 0204 0600000000 0600000001 120000 120000", rows("01") + "0202" + date(0)},
		{16, profile + "02 0204 06000000C8 0600000000 120002 120002", rows("01") + "0201 06000000C7"},
		{16, profile + "02 0204 0600000005 0600000003 120001 120000", rows("00")},
		{16, profile + "02 0204 0600000FFF 06000FFFFF 120001 120000", rows("00")},
		{16, profile + "02 0204 120001 120002 120001 120000", "C401C1010C"},
		{16, profile + "03 00", "C401C1010C"},
		{16, "C001C1 0003 0100010800FF 02 01 02 0204 0600000001 0600000002 120001 120000", "C401C1 01 03"},
	})
}
