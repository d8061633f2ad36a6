package dlms

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gridgate/dlms/security"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// grant is what a client takes from the answer to an association request that
// was made with o.
func grant(apdu []byte, o Options) (Association, error) {
	a, err := parseAARE(apdu)
	if err != nil {
		return Association{}, err
	}
	c := Client{options: o}
	if err := c.prepare(); err != nil {
		return Association{}, err
	}
	return c.grant(a)
}

func TestAARQ(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("p", 200)
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no authentication": {
			Options{Conformance: 0x007E1F, MaxPDU: 0x04B0},
			"601DA109060760857405080101BE10040E01000000065F1F0400007E1F04B0",
		},
		"password": {
			Options{Conformance: 0x007E1F, MaxPDU: 0x04B0, Mechanism: LLS, Password: []byte("12345678")},
			"6036A1090607608574050801018A0207808B0760857405080201AC0A80083132333435363738BE10040E01000000065F1F0400007E1F04B0",
		},
		"long password": {
			Options{Conformance: 0x007E1F, MaxPDU: 0x04B0, Mechanism: LLS, Password: []byte(long)},
			"6081F8 A109060760857405080101 8A020780 8B0760857405080201 AC81CB 8081C8" + hex.EncodeToString([]byte(long)) +
				"BE10040E01000000065F1F0400007E1F04B0",
		},
	} {
		if got := appendAARQ(nil, c.o, nil, appendInitiateRequest(nil, c.o, security.Key{})); !bytes.Equal(got, unhex(t, c.want)) {
			t.Errorf("%s: %x, want %s", name, got, c.want)
		}
	}
}

const granting = "6129 A109060760857405080101 A203020100 A305A103020100 BE10040E 0800 065F1F0400 001218 0200 0007"

func TestAARE(t *testing.T) {
	t.Parallel()
	proposed := Options{Conformance: 0x00101D}
	for name, c := range map[string]struct {
		apdu string
		want Association
	}{
		"trace 01": {granting, Association{Conformance: 0x001218, MaxPDU: 512, VAA: 7}},
		"conformance tag without 1F": {
			"6128 A109060760857405080101 A203020100 A305A103020100 BE0F040D 0800 065F0400 001218 0200 0007",
			Association{Conformance: 0x001218, MaxPDU: 512, VAA: 7},
		},
		"quality of service": {
			"612A A109060760857405080101 A203020100 A305A103020100 BE11040F 080107 065F1F0400 001218 0200 0007",
			Association{Conformance: 0x001218, MaxPDU: 512, VAA: 7},
		},
		"short names": {
			"6129 A109060760857405080102 A203020100 A305A103020100 BE10040E 0800 065F1F0400 1C0320 0400 FA00",
			Association{Conformance: 0x1C0320, MaxPDU: 1024, VAA: 0xFA00},
		},
		"without user information": {
			"6117 A109060760857405080101 A203020100 A305A103020100",
			Association{Conformance: 0x00101D},
		},
		"more than is needed": {
			"6136 8002 0780 A109060760857405080101 A203020100 A305A103020100 A40704054752583132 BE10040E 0800 065F1F0400 001218 0200 0007",
			Association{Conformance: 0x001218, MaxPDU: 512, VAA: 7},
		},
	} {
		if got, err := grant(unhex(t, c.apdu), proposed); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
}

func TestRefusingAARE(t *testing.T) {
	t.Parallel()
	head := "A109060760857405080101"
	for name, c := range map[string]struct {
		apdu           string
		authentication bool
		words          string
	}{
		"wrong password, no user information": {"6117" + head + "A203020101 A305A10302010D", true, "association rejected for good: authentication failure"},
		"mechanism unknown":                   {"6117" + head + "A203020101 A305A10302010B", true, "authentication mechanism not recognised"},
		"password needed":                     {"6117" + head + "A203020101 A305A10302010E", true, "authentication required"},
		"for now":                             {"6117" + head + "A203020102 A305A103020101", false, "association rejected for now: no reason given"},
		"context":                             {"6117" + head + "A203020101 A305A103020102", false, "application context not supported"},
		"provider":                            {"6117" + head + "A203020101 A305A203020102", false, "no common version of the protocol"},
		"provider's 13 is not about us":       {"6117" + head + "A203020101 A305A20302010D", false, "diagnostic of the provider 13"},
		"diagnostic of the future":            {"6117" + head + "A203020101 A305A103020163", false, "diagnostic 99"},
		"initiate error":                      {"611F" + head + "A203020101 A305A103020101 BE0604040E010602", false, "no reason given: initiate: incompatible conformance"},
		"accepted, with initiate error":       {"611F" + head + "A203020100 A305A103020100 BE0604040E010603", false, "initiate: pdu size too short"},
	} {
		_, err := grant(unhex(t, c.apdu), Options{})
		var refusal *AssociationError
		if !errors.As(err, &refusal) || errors.Is(err, ErrAuthentication) != c.authentication || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMalformedAARE(t *testing.T) {
	t.Parallel()
	whole := unhex(t, granting)
	for n := range whole {
		if _, err := grant(whole[:n], Options{}); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut at %d: %v", n, err)
		}
		// The same cut by one who counts well.
		if n > 2 && n < len(whole)-1 {
			cut := append([]byte{0x61, byte(n - 2)}, whole[2:n]...)
			if a, err := grant(cut, Options{}); err == nil && a.MaxPDU != 0 {
				t.Errorf("cut to %d: taken for %+v", n, a)
			}
		}
	}
	for name, apdu := range map[string]string{
		"no result":         "610B A109060760857405080101",
		"result of 2":       "6106 A20402020000",
		"user information":  "610B A203020100 BE04 04 02 0900",
		"version 5":         "6117 A203020100 BE10040E 0800 055F1F0400 001218 0200 0007",
		"conformance of 3":  "6117 A203020100 BE10040E 0800 065F1F0300 001218 0200 0007",
		"no conformance":    "6117 A203020100 BE10040E 0800 065E1F0400 001218 0200 0007",
		"short error":       "610B A203020100 BE04 04 02 0E01",
		"release response":  "6303800100",
		"diagnostic is odd": "610A A203020100 A303020100",
	} {
		if a, err := grant(unhex(t, apdu), Options{}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	if got := appendRLRQ(nil, nil); !bytes.Equal(got, unhex(t, "6203800100")) {
		t.Errorf("sent %x", got)
	}
	for _, good := range []string{"6303800100", "6300", "6311800100BE0F040E0800065F1F040000021C04000007"} {
		if err := parseRLRE(unhex(t, good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"63", "6305", "6203800100"} {
		if err := parseRLRE(unhex(t, bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzAARE(f *testing.F) {
	f.Add(unhex(f, granting))
	f.Add(unhex(f, "6117A109060760857405080101A203020101A305A10302010D"))
	f.Fuzz(func(t *testing.T, apdu []byte) {
		_, err := grant(apdu, Options{Conformance: 1})
		var refusal *AssociationError
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.As(err, &refusal) {
			t.Fatalf("%x: %v", apdu, err)
		}
		if err != nil && err.Error() == "" {
			t.Fatal("an error without words")
		}
		// A grant is only taken from an APDU that has a result of accepted.
		if err == nil && !bytes.Contains(apdu, []byte{tagResult, 3, 2, 1, 0}) && !bytes.Contains(apdu, []byte{2, 1, 0}) {
			t.Fatalf("%x was taken for a grant", apdu)
		}
	})
}

// TestCertificateInAARE has certificates in association requests and responses,
// octet for octet, and what is no certificate.
func TestCertificateInAARE(t *testing.T) {
	t.Parallel()
	o := Options{Mechanism: HLSECDSA, Security: Security{Title: security.Title([]byte("GRGATE01")), Certificate: []byte{0x30, 0x01, 0x07}}}
	got := fmt.Sprintf("%X", appendAARQ(nil, o, []byte("ABCDEFGH"), []byte{1}))
	const want = "603CA109060760857405080101A60A04084752474154453031A70504033001078A0207808B0760857405080207AC0A80084142434445464748BE0304" + "0101"
	if got != want {
		t.Errorf("request %s, want %s", got, want)
	}
	const before, after = "A109060760857405080101 A203020100 A305A10302010E ", "BE10040E0800065F1F0400007C1F04000007"
	for field, want := range map[string]string{
		"A5050403300107": "\x30\x01\x07", "": "", "A5020400": "", "A503020105": "", "A503040501": "",
	} {
		body := unhex(t, before+field+after)
		a, err := parseAARE(append([]byte{0x61, byte(len(body))}, body...))
		if err != nil || string(a.certificate) != want {
			t.Errorf("%s: %x, %v", field, a.certificate, err)
		}
	}
}
