package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"gridgate/agent"
	"gridgate/agent/vault"
	"gridgate/configs"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

// provision is a gateway that is being set up, and what was done to it.
type provision struct {
	env            cli.Env
	config, buffer string          // the file, and the folder of the state
	cfg            *configs.Config // nil: there is none, or cfgErr says what is wrong with it
	cfgErr         error
	vault          *vault.Vault
	at             func(step string) // is told what was just made durable; a test ends the process there
	changes        []string
}

// provisionFlags are the flags of the verb.
type provisionFlags struct {
	config, path, control string
	site, gateway, csr    string
	ca, svg, broker       string
	asJSON, force         bool
	siteID, gatewayID     meter.ID
	given                 map[string]bool
}

const provisionWants = "provision: want nothing, identity, certificate FILE, from DIR, setup or label"

func provisionVerb() cli.Verb {
	return cli.Verb{
		Name:    "provision",
		Summary: "give a new gateway its identity, certificate and configuration, and say what is missing",
		Args:    "[identity|certificate FILE|from DIR|setup|label]",
		Example: []string{
			"gridgate provision                           # what is there and what is missing; exit code 1 if something is",
			"gridgate provision identity -site north -gateway gw-1 -csr gw-1.csr",
			"gridgate provision certificate gw-1.pem -ca ca.pem",
			"gridgate provision from /media/usb/gw-1      # trust, configuration, ca.pem and gateway.pem, signed by the utility",
			"gridgate provision setup                     # asks for site, gateway and broker",
			"gridgate provision label -svg gw-1.svg       # a QR code for the label",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var f provisionFlags
			fs.StringVar(&f.config, "config", defaultConfig, "the configuration `FILE`; certificates and trust lie beside it")
			fs.StringVar(&f.path, "path", "", "the agent's buffer `DIR` (default: that of the configuration)")
			fs.StringVar(&f.control, "control", "", "the control `SOCKET` of a running agent (default: that of -config)")
			fs.StringVar(&f.site, "site", "", "identity, setup: the `SITE`")
			fs.StringVar(&f.gateway, "gateway", "", "identity, setup: the `GATEWAY`")
			fs.StringVar(&f.broker, "broker", "", "setup: the broker's `ADDRESS`")
			fs.StringVar(&f.csr, "csr", "", "identity: the `FILE` that the request for a certificate goes to (default: standard output)")
			fs.StringVar(&f.ca, "ca", "", "certificate: the `FILE` with who signed it (default: ca.pem beside the configuration)")
			fs.StringVar(&f.svg, "svg", "", "label: the `FILE` for a picture to print")
			fs.BoolVar(&f.force, "force", false, "identity: although the gateway has another; from: although the configuration was changed here")
			fs.BoolVar(&f.asJSON, "json", false, "print JSON")
			return func(ctx context.Context, env cli.Env, args []string) error {
				f.given = map[string]bool{}
				fs.Visit(func(g *flag.Flag) { f.given[g.Name] = true })
				err := f.run(ctx, env, args)
				var usage *cli.UsageError
				if err == nil || errors.As(err, &usage) {
					return err
				}
				return fmt.Errorf("provision: %w", err)
			}
		},
	}
}

// check says what is wrong with a command line.
func (f *provisionFlags) check(do string, args []string) error {
	takes := map[string]int{"": 0, "identity": 0, "certificate": 1, "from": 1, "setup": 0, "label": 0}
	n, known := takes[do]
	if !known {
		return cli.Usagef("%s; not %.40q", provisionWants, do)
	}
	if len(args) != n {
		what := map[string]string{"certificate": "one FILE", "from": "one DIR"}[do]
		return cli.Usagef("provision %s: want %s", do, cmp.Or(what, "no arguments"))
	}
	of := map[string][]string{
		"site": {"identity", "setup"}, "gateway": {"identity", "setup"}, "broker": {"setup"}, "csr": {"identity"},
		"ca": {"certificate"}, "svg": {"label"}, "force": {"identity", "from"},
	}
	for _, name := range []string{"site", "gateway", "broker", "csr", "ca", "svg", "force"} {
		allowed := false
		for _, verb := range of[name] {
			allowed = allowed || verb == do
		}
		if f.given[name] && !allowed {
			return cli.Usagef("provision %s: -%s is of provision %s", do, name, of[name][0])
		}
	}
	var err error
	if f.given["site"] {
		if f.siteID, err = meter.ParseID(f.site); err != nil {
			return cli.Usagef("provision %s: -site: %v", do, err)
		}
	}
	if f.given["gateway"] {
		if f.gatewayID, err = meter.ParseID(f.gateway); err != nil {
			return cli.Usagef("provision %s: -gateway: %v", do, err)
		}
	}
	return nil
}

func (f *provisionFlags) run(ctx context.Context, env cli.Env, args []string) error {
	do := ""
	if len(args) > 0 {
		do, args = args[0], args[1:]
	}
	if err := f.check(do, args); err != nil {
		return err
	}
	p, err := f.open(env)
	if err != nil {
		return err
	}
	switch do {
	case "":
		return p.tell(ctx, f, do)
	case "label":
		return p.label(f)
	}
	done, err := p.lock()
	if err != nil {
		return err
	}
	defer done()
	switch do {
	case "identity":
		err = p.makeIdentity(f)
	case "certificate":
		err = p.certificate(args[0], f.ca)
	case "from":
		err = p.from(args[0], f.force)
	case "setup":
		err = p.setup(f)
	}
	if err != nil {
		return err
	}
	p.reload()
	return p.tell(ctx, f, do)
}

func (f *provisionFlags) open(env cli.Env) (*provision, error) {
	config, err := filepath.Abs(f.config)
	if err != nil {
		return nil, err
	}
	p := &provision{env: env, config: config, buffer: agentState, at: provisionCut(env.Getenv)}
	p.reload()
	if p.cfg != nil {
		p.buffer = p.cfg.Buffer.Path
	}
	if f.path != "" {
		if p.buffer, err = filepath.Abs(f.path); err != nil {
			return nil, err
		}
	}
	p.vault = vault.Open(agent.VaultDir(p.buffer), env.Getenv)
	return p, nil
}

// reload reads the configuration as it is now.
func (p *provision) reload() {
	p.cfg, p.cfgErr = configs.Load(p.config)
	if errors.Is(p.cfgErr, fs.ErrNotExist) {
		p.cfgErr = nil
	}
}

// dir is where what provisioning knows is kept.
func (p *provision) dir() string { return filepath.Join(p.buffer, "provision") }

// beside gives a file in the folder of the configuration.
func (p *provision) beside(name string) string { return filepath.Join(filepath.Dir(p.config), name) }

func (p *provision) caFile() string          { return p.beside("ca.pem") }
func (p *provision) certificateFile() string { return p.beside("gateway.pem") }
func (p *provision) trustFile() string       { return p.beside("trust") }

// did notes what was changed.
func (p *provision) did(format string, args ...any) {
	p.changes = append(p.changes, fmt.Sprintf(format, args...))
}

// makeIdentity makes the identity and gives the request out.
func (p *provision) makeIdentity(f *provisionFlags) error {
	site, gateway := f.siteID, f.gatewayID
	if site == "" || gateway == "" { // as it is already
		if old, err := p.identity(); err == nil {
			site, gateway = cmp.Or(site, old.site), cmp.Or(gateway, old.gateway)
		} else if p.cfg != nil {
			site, gateway = cmp.Or(site, p.cfg.Site), cmp.Or(gateway, p.cfg.Gateway)
		}
	}
	if site == "" || gateway == "" {
		return cli.Usagef("provision identity: want -site SITE and -gateway GATEWAY")
	}
	id, err := p.ensureIdentity(site, gateway, f.force)
	if err != nil || f.csr == "" {
		return err
	}
	// It may go to a stick with a file system that knows no owners.
	if err := os.WriteFile(f.csr, id.request, 0o644); err != nil { //nolint:gosec // it is for everybody
		return err
	}
	out, err := os.Open(f.csr)
	if err != nil {
		return err
	}
	return errors.Join(out.Sync(), out.Close())
}

// certificate checks a certificate and takes it.
func (p *provision) certificate(file, ca string) error {
	id, err := p.identity()
	if err != nil {
		return err
	}
	if ca == "" {
		if ca = p.caFile(); !exists(ca) {
			return fmt.Errorf("who signed the certificate is not known: name the file with -ca (%s is not there)", ca)
		}
	}
	got, err := readPair(file, ca)
	if err != nil {
		return err
	}
	if err := checkCertificate(got.chain, got.roots, id, time.Now()); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return p.takeCertificate(got)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// tell prints what was changed and what is missing. Of the checklist alone something
// missing is an error.
func (p *provision) tell(ctx context.Context, f *provisionFlags, do string) error {
	r := p.checklist(ctx, f.control)
	out := p.env.Stdout
	if id, err := p.identity(); err == nil && do == "identity" && f.csr == "" {
		if r.Request = string(id.request); !f.asJSON {
			fmt.Fprint(out, r.Request)
			out = p.env.Stderr
		}
	}
	if f.asJSON {
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return err
		}
	} else {
		for _, c := range p.changes {
			fmt.Fprintln(out, c)
		}
		if len(p.changes) == 0 && do != "" {
			fmt.Fprintln(out, "nothing was changed: all of it was there")
		}
		r.print(out)
	}
	if do == "" && !r.Complete {
		return fmt.Errorf("%s missing", countIs(r.missing()))
	}
	return nil
}

func countIs(n int) string {
	if n == 1 {
		return "1 thing is"
	}
	return fmt.Sprintf("%d things are", n)
}
