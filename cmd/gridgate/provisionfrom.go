package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"gridgate/agent/order"
	"gridgate/agent/vault"
	"gridgate/configs"
	"gridgate/internal/meter"
)

// The files of a bundle.
const (
	bundleTrust         = "trust"
	bundleConfiguration = "configuration"
	bundleCertificate   = "gateway.pem"
	bundleCA            = "ca.pem"
)

// provisionBundle is what a folder holds for a gateway, all of it checked.
type provisionBundle struct {
	trust    []byte
	document []byte
	order    *order.Document
	verdict  order.Verdict
	pair     *certPair // nil: the folder has no certificate
	keep     bool      // the configuration that is there is left as it is
}

// from takes what a folder holds for this gateway. All is checked before anything is
// written; each step is durable before the next, and the configuration is the last.
func (p *provision) from(dir string, force bool) error {
	b := &provisionBundle{}
	trust, err := p.bundleTrust(dir, b)
	if err != nil {
		return err
	}
	if b.document, err = readPlain(filepath.Join(dir, bundleConfiguration)); err != nil {
		return missingFile(err, "the signed configuration")
	}
	name := filepath.Join(dir, bundleConfiguration)
	if b.order, err = trust.Verify(b.document); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	id, err := p.bundleTarget(b.order)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := p.bundleJudge(b, id, force); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := p.bundlePair(dir, b, id); err != nil {
		return err
	}
	if err := p.bundleSecrets(b); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, err := p.ensureIdentity(id.site, id.gateway, false); err != nil {
		return err
	}
	return p.takeBundle(b)
}

func missingFile(err error, what string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: %w", what, err)
	}
	return err
}

// bundleTrust gives whose signatures count: the keys that this gateway trusts, else
// those of the folder.
func (p *provision) bundleTrust(dir string, b *provisionBundle) (*order.Trust, error) {
	path := filepath.Join(dir, bundleTrust)
	brought, err := readPlain(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if exists(p.trustFile()) {
		path, b.trust = p.trustFile(), nil
		if b.trust, err = readPlain(path); err != nil {
			return nil, err
		}
		if brought != nil && !bytes.Equal(brought, b.trust) {
			return nil, fmt.Errorf("%s: this gateway trusts other keys already (%s); a newer trust document is taken by gridgate config apply", filepath.Join(dir, bundleTrust), path)
		}
	} else if b.trust = brought; brought == nil {
		return nil, missingFile(err, "the trust document")
	}
	t, _, err := order.FirstTrust(b.trust)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// bundleTarget says which gateway a configuration is for: this one, or on a gateway
// without an identity the one that it will be.
func (p *provision) bundleTarget(d *order.Document) (*identity, error) {
	if d.Kind != order.KindConfig {
		return nil, fmt.Errorf("%w: %s; want a configuration", order.ErrKind, d.Kind)
	}
	if d.Target.Group != "" {
		return nil, fmt.Errorf("%w: %s; want SITE/GATEWAY, a configuration for one gateway", order.ErrTarget, d.Target)
	}
	id, err := p.identity()
	if errors.Is(err, errNoIdentity) {
		id, err = &identity{site: meter.ID(d.Target.Site), gateway: meter.ID(d.Target.Gateway)}, nil
	}
	if err != nil {
		return nil, err
	}
	if d.Target.String() != id.name() {
		return nil, fmt.Errorf("%w: %s; this is %s", order.ErrTarget, d.Target, id.name())
	}
	return id, nil
}

// record is the configuration that was taken last, as it was signed.
func (p *provision) record() string { return filepath.Join(p.dir(), "configuration") }

// bundleJudge says whether the configuration may be taken here and now.
func (p *provision) bundleJudge(b *provisionBundle, id *identity, force bool) (err error) {
	var last *order.Document
	if data, err := readPlain(p.record()); err == nil {
		last, _ = order.Read(data) // a damaged one says nothing
	}
	here := order.Here{
		Site: string(id.site), Gateway: string(id.gateway), Agent: version, Now: time.Now(), Trusted: true,
		Seen: func(order.Kind, order.Target) (v uint64, hash [32]byte, ok bool) {
			if last == nil || last.Target != b.order.Target {
				return 0, hash, false
			}
			return last.Version, last.Hash, true
		},
	}
	if b.verdict, err = b.order.Judge(here); err != nil {
		return err
	}
	switch {
	case !exists(p.config) || fileHolds(p.config, b.order.Payload):
	case b.verdict == order.Same && !force:
		b.keep = true // somebody has changed it since
	case last != nil && fileHolds(p.config, last.Payload) || force:
	default:
		return fmt.Errorf("%s is there already, with what somebody wrote on this gateway; -force puts this one in its place", p.config)
	}
	return nil
}

// bundleSecrets says whether the secrets can be opened here and the configuration is
// whole and right with them.
func (p *provision) bundleSecrets(b *provisionBundle) error {
	switch err := p.vault.Check(b.order.Secrets); {
	case errors.Is(err, vault.ErrNoIdentity) && !exists(filepath.Join(p.vault.Dir(), "recipient")):
		return fmt.Errorf("its secrets are sealed for another key: this gateway has made none yet; first: %s", doIdentity)
	case err != nil:
		return err
	}
	store := func(string) ([]string, error) {
		names, err := p.vault.Names()
		return append(append(names, vault.NamesOf(b.order.Secrets)...), clientKeyName), err
	}
	cfg, err := configs.ParseOn("configuration", b.order.Payload, store)
	if err != nil {
		return err
	}
	if got := string(cfg.Site) + "/" + string(cfg.Gateway); got != b.order.Target.String() {
		return fmt.Errorf("%w: it is addressed to %s, and in it stands %s", order.ErrTarget, b.order.Target, got)
	}
	for _, f := range []struct{ key, has, want string }{
		{"buffer.path", cfg.Buffer.Path, p.buffer},
		{"trust.file", cfg.Trust.File, p.trustFile()},
		{"uplink.ca", cmp.Or(cfg.Uplink.CA, p.caFile()), p.caFile()},
		{"uplink.certificate", cmp.Or(cfg.Uplink.Certificate, p.certificateFile()), p.certificateFile()},
	} {
		if f.has != f.want {
			return fmt.Errorf("%s: %q; here it is %s", f.key, f.has, f.want)
		}
	}
	return nil
}

// bundlePair reads the certificate, where the folder has one, and checks it.
func (p *provision) bundlePair(dir string, b *provisionBundle, id *identity) error {
	file, ca := filepath.Join(dir, bundleCertificate), filepath.Join(dir, bundleCA)
	if !exists(file) {
		return nil
	}
	if id.key == nil {
		return fmt.Errorf("%s: this gateway has made no key yet, so the certificate is another's; first: %s", file, doIdentity)
	}
	if !exists(ca) {
		ca = p.caFile()
	}
	got, err := readPair(file, ca)
	if err != nil {
		return missingFile(err, "who signed the certificate ("+bundleCA+")")
	}
	if err := checkCertificate(got.chain, got.roots, id, time.Now()); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	b.pair = &got
	return nil
}

// takeBundle writes what was checked.
func (p *provision) takeBundle(b *provisionBundle) error {
	if b.pair != nil {
		if err := p.takeCertificate(*b.pair); err != nil {
			return err
		}
	}
	if b.verdict != order.Same && len(b.order.Secrets) > 0 {
		if err := p.vault.Take(b.order.Secrets); err != nil {
			return err
		}
		for _, name := range vault.NamesOf(b.order.Secrets) {
			p.did("secret set: %s", name)
		}
	}
	p.at("secrets")
	steps := []struct {
		what, path string
		data       []byte
		public     bool
	}{{"trust", p.trustFile(), b.trust, true}, {"configuration", p.config, b.order.Payload, true}, {"record", p.record(), b.document, false}}
	for _, s := range steps {
		if b.keep && s.what == "configuration" {
			continue
		}
		changed, err := p.put(s.path, s.data, 0o644)
		if err != nil {
			return err
		}
		if changed && s.public {
			p.did("%s written: %s", s.what, s.path)
		}
		p.at(s.what)
	}
	return nil
}
