package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"gridgate/internal/meter"
)

// splitName reads SITE/GATEWAY.
func splitName(s string) (site, gateway meter.ID, err error) {
	a, b, _ := strings.Cut(s, "/")
	site, err = meter.ParseID(a)
	if err == nil {
		gateway, err = meter.ParseID(b)
	}
	if err != nil {
		return "", "", fmt.Errorf("%.80q names no gateway; want SITE/GATEWAY", s)
	}
	return site, gateway, nil
}

// readCertificates reads PEM, of which nothing but certificates is taken.
func readCertificates(data []byte) (all []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, errors.New("it holds a private key, which has no place there: the gateway has made its own")
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it holds %.40q; want certificates in PEM", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate in it; want PEM, which begins with -----BEGIN CERTIFICATE-----")
	}
	return all, nil
}

// pemOf writes certificates and nothing else.
func pemOf(all []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range all {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a buffer takes it
	}
	return b.Bytes()
}

// checkCertificate says what is wrong with a certificate, the gateway's own first
// and those between after it, for this gateway at that time.
func checkCertificate(chain, roots []*x509.Certificate, id *identity, now time.Time) error {
	c := chain[0]
	if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || !key.Equal(id.key) {
		return errors.New("it is for another key than this gateway's: have the request signed that gridgate provision identity gives")
	}
	names := []string{}
	for _, u := range c.URIs {
		if u.Scheme == "gridgate" {
			names = append(names, u.Host+u.Path)
		}
	}
	if len(names) == 0 {
		names = append(names, c.Subject.CommonName)
	}
	if len(names) != 1 || names[0] != id.name() {
		return fmt.Errorf("it names %.80q; this gateway is %s", names, id.name())
	}
	const day = time.DateTime
	if now.Before(c.NotBefore) {
		return fmt.Errorf("it is valid from %s UTC on, and the clock shows %s: is the clock right?", c.NotBefore.UTC().Format(day), now.UTC().Format(day))
	}
	if now.After(c.NotAfter) {
		return fmt.Errorf("it has expired at %s UTC, and the clock shows %s: have the request signed again", c.NotAfter.UTC().Format(day), now.UTC().Format(day))
	}
	trusted, between := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range roots {
		trusted.AddCert(r)
	}
	for _, m := range chain[1:] {
		between.AddCert(m)
	}
	_, err := c.Verify(x509.VerifyOptions{Roots: trusted, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

// certPair is a certificate and who signed it, as files give them.
type certPair struct{ chain, roots []*x509.Certificate }

// readPair reads the files that hold them.
func readPair(certificate, ca string) (got certPair, err error) {
	for _, f := range []struct {
		path string
		into *[]*x509.Certificate
	}{{certificate, &got.chain}, {ca, &got.roots}} {
		data, err := readPlain(f.path)
		if err != nil {
			return got, err
		}
		if *f.into, err = readCertificates(data); err != nil {
			return got, fmt.Errorf("%s: %w", f.path, err)
		}
	}
	return got, nil
}

// takeCertificate puts a certificate that was checked, and who signed it, where the
// agent reads them.
func (p *provision) takeCertificate(got certPair) error {
	for _, f := range []struct {
		path, what string
		all        []*x509.Certificate
	}{{p.caFile(), "ca", got.roots}, {p.certificateFile(), "certificate", got.chain}} {
		changed, err := p.put(f.path, pemOf(f.all), 0o644)
		if err != nil {
			return err
		}
		if changed {
			p.did("%s written: %s", f.what, f.path)
		}
		p.at(f.what)
	}
	return nil
}
