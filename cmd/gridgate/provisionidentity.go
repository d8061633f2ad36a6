package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"

	"gridgate/agent/vault"
	"gridgate/internal/meter"
	"gridgate/internal/secret"
)

// clientKeyName is the secret that holds the key of the gateway's certificate:
// uplink.key: secret:client-key.
const clientKeyName = "client-key"

// identity is who a gateway is: names, and the public key of its certificate.
type identity struct {
	site, gateway meter.ID
	request       []byte // PKCS#10, PEM
	key           *ecdsa.PublicKey
}

func (i *identity) name() string { return string(i.site) + "/" + string(i.gateway) }

// fingerprint is half of the SHA-256 of the public key, which does for a label.
func (i *identity) fingerprint() string {
	der, err := publicKeyDER(i.key)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:16])
}

var errNoIdentity = errors.New("this gateway has no identity yet: gridgate provision identity -site SITE -gateway GATEWAY makes it")

// identity reads who this gateway is; errNoIdentity where nobody has said so.
func (p *provision) identity() (*identity, error) {
	path := filepath.Join(p.dir(), "request.pem")
	data, err := readPlain(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoIdentity
	}
	if err != nil {
		return nil, err
	}
	id, err := parseRequest(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; gridgate provision identity -force -site SITE -gateway GATEWAY makes another", path, err)
	}
	return id, nil
}

func parseRequest(data []byte) (*identity, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("no certificate request")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, err
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || len(r.URIs) != 1 || r.URIs[0].Scheme != "gridgate" {
		return nil, errors.New("no request of a gateway")
	}
	i := &identity{request: data, key: key}
	i.site, i.gateway, err = splitName(r.URIs[0].Host + r.URIs[0].Path)
	return i, err
}

// ensureIdentity makes what is missing of the identity: the key that secrets are
// sealed to, that of the certificate, and the request, one after the other.
func (p *provision) ensureIdentity(site, gateway meter.ID, force bool) (*identity, error) {
	old, err := p.identity()
	if err != nil && !errors.Is(err, errNoIdentity) && !force {
		return nil, err
	}
	if old != nil && (old.site != site || old.gateway != gateway) && !force {
		return nil, fmt.Errorf("this gateway is %s already; -force makes it %s/%s, with another certificate", old.name(), site, gateway)
	}
	if p.cfg != nil && (p.cfg.Site != site || p.cfg.Gateway != gateway) {
		return nil, fmt.Errorf("%s is the configuration of %s/%s, not of %s/%s", p.config, p.cfg.Site, p.cfg.Gateway, site, gateway)
	}
	if err := p.makeDir(p.buffer); err != nil {
		return nil, err
	}
	had, _ := p.vault.Recipient()
	recipient, err := p.vault.Ensure()
	if err != nil {
		return nil, err
	}
	if had == "" {
		p.did("key for sealed secrets made: %s", recipient)
	}
	p.at("recipient")
	key, err := p.ensureKey(old)
	if err != nil {
		return nil, err
	}
	p.at("key")
	if old != nil && old.site == site && old.gateway == gateway && (key == nil || key.PublicKey.Equal(old.key)) {
		return old, nil
	}
	if key == nil {
		return nil, errors.New("only the service has the key that opens its secrets, so no other request can be made here")
	}
	id, err := newRequest(site, gateway, key)
	if err != nil {
		return nil, err
	}
	if _, err := p.put(filepath.Join(p.dir(), "request.pem"), id.request, 0o644); err != nil {
		return nil, err
	}
	p.did("request for a certificate made for %s", id.name())
	p.at("request")
	return id, nil
}

// ensureKey gives the key of the certificate, and makes it where there is none. It
// is nil where the service alone can open it, and a request says that it is there.
func (p *provision) ensureKey(old *identity) (*ecdsa.PrivateKey, error) {
	key, err := p.key()
	switch {
	case err == nil:
		return key, nil
	case errors.Is(err, vault.ErrNoIdentity) && old != nil && p.vault.Mark(clientKeyName) != "none":
		return nil, nil //nolint:nilnil // nothing is wrong, and the key is not to be had
	case !errors.Is(err, vault.ErrUnknown) && (!errors.Is(err, vault.ErrNoIdentity) || p.vault.Mark(clientKeyName) != "none"):
		return nil, fmt.Errorf("the secret %s: %w; gridgate secret rm -force %s takes it away, and the next run makes another", clientKeyName, err, clientKeyName)
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	der, err := privateKeyDER(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := p.vault.Set(clientKeyName, secret.Of(text)); err != nil {
		return nil, err
	}
	p.did("key of the certificate made: secret:%s", clientKeyName)
	return key, nil
}

// key gives the key of the certificate.
func (p *provision) key() (*ecdsa.PrivateKey, error) {
	value, err := p.vault.Get(clientKeyName)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(value.Reveal())
	if block == nil {
		return nil, errors.New("it is no key in PEM")
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		any, err = x509.ParseECPrivateKey(block.Bytes)
	}
	key, ok := any.(*ecdsa.PrivateKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("it is no key of P-256") // nothing of it is quoted
	}
	return key, nil
}

// newRequest makes a request for a certificate. Brokers know gateways by the URI
// gridgate://SITE/GATEWAY, or else by the common name SITE/GATEWAY, for which X.520
// has no more than 64 characters.
func newRequest(site, gateway meter.ID, key *ecdsa.PrivateKey) (*identity, error) {
	i := &identity{site: site, gateway: gateway, key: &key.PublicKey}
	name := i.name()
	if len(name) > 64 {
		name = string(gateway)
	}
	uri := url.URL{Scheme: "gridgate", Host: string(site), Path: "/" + string(gateway)}
	der, err := requestDER(name, uri.String(), key)
	if err != nil {
		return nil, err
	}
	i.request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return i, nil
}

// lookKey looks whether the key of the certificate is there, and is that of the
// request, and makes nothing. note says where only the service can open it.
func (p *provision) lookKey(id *identity) (note string, err error) {
	key, err := p.key()
	switch {
	case errors.Is(err, vault.ErrNoIdentity) && p.vault.Mark(clientKeyName) != "none":
		return " (only the service can open it)", nil
	case err != nil:
		return "", err
	case !key.PublicKey.Equal(id.key):
		return "", errors.New("it is another one than that of the request")
	}
	return "", nil
}
