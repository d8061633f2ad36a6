package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/dlms/security"
	"gridgate/internal/cli"
)

// securedOptions are the flags of how clients are let in.
type securedOptions struct {
	auth, password, ek, ak, title, protection, ref string
	client, suite                                  int
	standing                                       bool
}

func (o *securedOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.password, "password", "", "the `secret` of the clients 17 to 20 and 22: low level, then HLS 2, MD5, SHA-1, SHA-256;\n"+
		"without one client 17 needs none, as client 16 (public, reads only)")
	fs.StringVar(&o.auth, "auth", "", "let in a client -client by none, lls, hls2, md5, sha1, gmac, sha256 or ecdsa, and print what goes into its URL")
	fs.IntVar(&o.client, "client", 1, "the client of -auth")
	fs.StringVar(&o.ref, "ref", "ln", "how the client of -auth names objects: ln, or sn as old meters do, client 16 of which does so too;\n"+
		"client 32 does without authentication by sn, all others by ln")
	fs.StringVar(&o.protection, "security", "none", "what the client of -auth must do to all that it sends: none, auth, enc or authenc")
	fs.StringVar(&o.ek, "ek", "", "encryption key in `hex`; without one 000102…; client 21 (GMAC) needs it too,\nand it is the master key that new keys come wrapped by")
	fs.StringVar(&o.ak, "ak", "", "authentication key in `hex`; without one D0D1D2…")
	fs.StringVar(&o.title, "title", "", "the first meter's system title, 16 hexadecimal digits or 8 characters; the others count on;\n"+
		"without one 4752470000000001")
	fs.BoolVar(&o.standing, "pre-established", false, "the client of -auth none has its association without asking, as client 102 (reads only) always has;\n"+
		"with -security its title is "+clientTitle)
	fs.IntVar(&o.suite, "suite", 0, "security suite: 0, 1 or 2")
}

// mechanisms are the names of -auth, by number.
func mechanisms() []string {
	return []string{"none", "lls", "hls2", "md5", "sha1", "gmac", "sha256", "ecdsa"}
}

// The mechanisms that are special.
const (
	mechanismNone  = 0
	mechanismLLS   = 1
	mechanismGMAC  = 5
	mechanismECDSA = 7
)

// secured is who is let in.
type secured struct {
	securedOptions
	mechanism int
	policy    security.Policy
	keys      security.Keys
	first     security.Title
	meterKey  *ecdsa.PrivateKey // for ecdsa: made anew each time
	clientKey *ecdsa.PrivateKey
	counter   uint32 // the first of what each meter sends
}

// firstCounter gives the invocation counter that a meter begins with which is
// started now: ten a second, so that one with the same title and keys that was
// stopped before, and was not asked all the time, had sent lower ones. After more
// than a day of rest those who remember it find the leap too far.
func firstCounter(now time.Time) uint32 {
	since := now.Sub(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	return uint32(max(0, since/(100*time.Millisecond)))
}

func (o *securedOptions) parse() (*secured, error) {
	s := &secured{securedOptions: *o, counter: firstCounter(time.Now())}
	switch o.protection {
	case "none":
	case "auth":
		s.policy = security.Authenticated
	case "enc":
		s.policy = security.Encrypted
	case "authenc":
		s.policy = security.AuthenticatedEncrypted
	default:
		return nil, cli.Usagef("dlms: -security %q: want none, auth, enc or authenc", o.protection)
	}
	if o.auth != "" {
		if s.mechanism = slices.Index(mechanisms(), o.auth); s.mechanism < 0 {
			return nil, cli.Usagef("dlms: -auth %q: want one of %s", o.auth, strings.Join(mechanisms(), ", "))
		}
	}
	needsPassword := s.mechanism != mechanismNone && s.mechanism != mechanismGMAC && s.mechanism != mechanismECDSA
	suite := security.Suite(max(0, min(o.suite, 255)))
	switch {
	case o.auth == "" && s.policy != security.Unprotected:
		return nil, cli.Usagef("dlms: -security is for the client of -auth")
	case o.auth != "" && (o.client < 1 || o.client > 127):
		return nil, cli.Usagef("dlms: -client %d: want 1 to 127", o.client)
	case o.standing && o.auth != "none":
		return nil, cli.Usagef("dlms: -pre-established is for -auth none")
	case o.ref != "ln" && o.ref != "sn":
		return nil, cli.Usagef("dlms: -ref %q: want ln or sn", o.ref)
	case needsPassword && o.password == "":
		return nil, cli.Usagef("dlms: -auth %s needs -password", o.auth)
	case o.suite < 0 || o.suite > 2:
		return nil, cli.Usagef("dlms: -suite %d: want 0, 1 or 2", o.suite)
	case s.mechanism == mechanismECDSA && suite == security.Suite0:
		return nil, cli.Usagef("dlms: -auth ecdsa needs -suite 1 or 2")
	}
	var err error
	if s.keys.Encryption, err = simKey("ek", o.ek, suite, 0x00); err != nil {
		return nil, err
	}
	if s.keys.Authentication, err = simKey("ak", o.ak, suite, 0xD0); err != nil {
		return nil, err
	}
	if s.first, err = simTitle(o.title); err != nil {
		return nil, err
	}
	if s.mechanism == mechanismECDSA {
		err = s.makeKeys(suite)
	}
	return s, err
}

func simKey(name, text string, suite security.Suite, first byte) (security.Key, error) {
	b, err := hex.DecodeString(text)
	if text == "" {
		for i := range suite.KeyLen() {
			b = append(b, first+byte(i))
		}
	}
	if err != nil || len(b) != suite.KeyLen() {
		return security.Key{}, cli.Usagef("dlms: -%s: want %d hexadecimal digits, the key of suite %d", name, 2*suite.KeyLen(), uint8(suite))
	}
	return security.NewKey(b)
}

func simTitle(text string) (security.Title, error) {
	b := []byte(text)
	if text == "" {
		b = []byte("GRG\x00\x00\x00\x00\x01")
	}
	if len(text) == 2*security.TitleLen {
		b, _ = hex.DecodeString(text) // what is none has no 8 octets
	}
	title, err := security.ParseTitle(b)
	if err != nil {
		return title, cli.Usagef("dlms: -title: want 16 hexadecimal digits, or 8 characters")
	}
	return title, nil
}

func (s *secured) makeKeys(suite security.Suite) (err error) {
	curve := elliptic.P256()
	if suite == security.Suite2 {
		curve = elliptic.P384()
	}
	if s.meterKey, err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
		return err
	}
	s.clientKey, err = ecdsa.GenerateKey(curve, rand.Reader)
	return err
}

// clients gives who is let in, and how.
func (s *secured) clients() map[uint16]dlmstest.Login {
	clients := map[uint16]dlmstest.Login{
		16: {Conformance: dlmstest.Reading, ReadOnly: true},
		17: {},
		21: {Mechanism: mechanismGMAC},
		32: {Conformance: dlmstest.ShortNames, ReadOnly: true},
		// Who is there already.
		102: {Conformance: dlmstest.Reading, ReadOnly: true, PreEstablished: true},
	}
	if s.password != "" {
		for client, mechanism := range map[uint16]uint8{17: mechanismLLS, 18: 2, 19: 3, 20: 4, 22: 6} {
			clients[client] = dlmstest.Login{Mechanism: mechanism, Secret: s.password}
		}
	}
	if s.ref == "sn" {
		clients[16] = clients[32] // who asks for the invocation counter does so by the names of the meter
	}
	if s.auth != "" {
		login := dlmstest.Login{Mechanism: uint8(s.mechanism), Secret: s.password, Policy: s.policy}
		if login.PreEstablished = s.standing; s.standing {
			login.Title = security.Title([]byte(clientTitle))
		}
		if s.ref == "sn" {
			login.Conformance = dlmstest.ShortNames
		}
		clients[uint16(s.client)] = login
	}
	return clients
}

// security gives titles and keys of the meter with that number. The master key
// is the encryption key.
func (s *secured) security(number int) dlmstest.Security {
	title := s.first
	binary.BigEndian.PutUint32(title[4:], binary.BigEndian.Uint32(title[4:])+uint32(number))
	out := dlmstest.Security{
		Suite: security.Suite(s.suite), Title: title, Keys: s.keys, Master: s.keys.Encryption, SigningKey: s.meterKey,
		Counter: s.counter,
	}
	if s.clientKey != nil {
		out.ClientKey = &s.clientKey.PublicKey
	}
	return out
}

// clientTitle is the title in the URLs that are printed; any other will do.
const clientTitle = "GRIDGATE"

// describe says who the client of -auth is, and what its URL is: "" if there is
// none.
func (s *secured) describe(title security.Title, scheme, where string, pty bool, d *dlmsMeter) string {
	if s.auth == "" {
		return ""
	}
	q := []string{fmt.Sprintf("client=%d", s.client)}
	add := func(key, value string) { q = append(q, key+"="+strings.ReplaceAll(url.QueryEscape(value), "+", "%20")) }
	if s.ref != "ln" {
		add("ref", s.ref)
	}
	if s.mechanism != mechanismNone {
		add("auth", s.auth)
	}
	if s.password != "" && s.mechanism != mechanismNone && s.mechanism != mechanismGMAC && s.mechanism != mechanismECDSA {
		add("password", s.password)
	}
	if s.policy != security.Unprotected {
		add("security", s.protection)
	}
	ciphers := s.policy != security.Unprotected || s.mechanism == mechanismGMAC
	if s.suite != 0 && (ciphers || s.mechanism == mechanismECDSA) {
		add("suite", fmt.Sprint(s.suite))
	}
	if ciphers || s.mechanism > mechanismGMAC {
		add("title", clientTitle)
	}
	if ciphers {
		add("ek", hex.EncodeToString(s.keys.Encryption.AppendSecret(nil)))
		if s.policy != security.Encrypted || s.mechanism == mechanismGMAC {
			add("ak", hex.EncodeToString(s.keys.Authentication.AppendSecret(nil)))
		}
	}
	if s.mechanism == mechanismECDSA {
		private, _ := s.clientKey.Bytes() // keys that were just made have octets
		public, _ := s.meterKey.PublicKey.Bytes()
		add("sk", hex.EncodeToString(private))
		add("pk", hex.EncodeToString(public))
	}
	if d.transport == transportHDLC || d.transport == transportModeE {
		if d.hdlc.physical != 0 {
			add("physical", fmt.Sprint(d.hdlc.physical))
		}
		if d.hdlc.addrLen != 0 {
			add("addrlen", fmt.Sprint(d.hdlc.addrLen))
		}
		if pty && d.pace.baud != 0 {
			add("baud", fmt.Sprint(d.pace.baud))
		}
	}
	return fmt.Sprintf(" client %d title %v url %s://%s?%s", s.client, title, scheme, where, strings.Join(q, "&"))
}
