package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"gridgate/agent"
	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/configs"
	"gridgate/internal/sys"
)

// provisionItem is a line of the checklist.
type provisionItem struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
	Do   string `json:"do,omitempty"`
}

// provisionReport is what is there and what is missing.
type provisionReport struct {
	Site      string          `json:"site,omitempty"`
	Gateway   string          `json:"gateway,omitempty"`
	Recipient string          `json:"recipient,omitempty"`
	Key       string          `json:"key,omitempty"`
	Request   string          `json:"request,omitempty"`
	Changed   []string        `json:"changed"`
	Items     []provisionItem `json:"items"`
	Complete  bool            `json:"complete"`
}

func (r *provisionReport) missing() (n int) {
	for _, i := range r.Items {
		if !i.OK {
			n++
		}
	}
	return n
}

func (r *provisionReport) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, i := range r.Items {
		state := "ok"
		if !i.OK {
			state = "MISSING"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", i.Name, state, i.Text)
		if i.Do != "" {
			fmt.Fprintf(w, "\t\t-> %s\n", i.Do)
		}
	}
	_ = w.Flush() // as every other print
}

// checklist looks what is there.
func (p *provision) checklist(ctx context.Context, control string) *provisionReport {
	r := &provisionReport{Changed: p.changes}
	if r.Changed == nil {
		r.Changed = []string{}
	}
	id, err := p.identity()
	if err == nil {
		r.Site, r.Gateway, r.Key = string(id.site), string(id.gateway), "sha256:"+id.fingerprint()
	}
	r.Recipient, _ = p.vault.Recipient()
	looks := []struct {
		name string
		look func() (text, do string)
	}{
		{"identity", func() (string, string) { return p.lookIdentity(id, err) }},
		{"certificate", func() (string, string) { return p.lookCertificate(id) }},
		{"trust", p.lookTrust},
		{"configuration", func() (string, string) { return p.lookConfiguration(id) }},
		{"meters", p.lookMeters},
		{"clock", func() (string, string) { return p.lookClock(ctx, control) }},
	}
	for _, l := range looks {
		text, do := l.look()
		r.Items = append(r.Items, provisionItem{Name: l.name, OK: do == "", Text: text, Do: do})
	}
	r.Complete = r.missing() == 0
	return r
}

// What to do where something is missing.
const (
	doIdentity    = "gridgate provision identity -site SITE -gateway GATEWAY -csr FILE"
	doCertificate = "have the request signed (gridgate provision identity -csr FILE gives it), then: gridgate provision certificate FILE -ca FILE"
	doTrust       = "put the utility's first trust document beside the configuration: gridgate provision from DIR does so"
	doConfig      = "gridgate provision from DIR, or gridgate provision setup, which asks"
	doClock       = "name time servers in time.servers, or let chrony or systemd-timesyncd run; see gridgate clock"
)

func (p *provision) lookIdentity(id *identity, err error) (text, do string) {
	if errors.Is(err, errNoIdentity) {
		return "nobody has said which gateway this is", doIdentity
	}
	if err != nil {
		return err.Error(), doIdentity
	}
	if _, err := p.vault.Recipient(); err != nil {
		return err.Error(), doIdentity
	}
	key, err := p.lookKey(id)
	if err != nil {
		return "the key of the certificate: " + err.Error(), "gridgate provision identity makes what is missing; then have the new request signed"
	}
	return id.name() + ", key sha256:" + id.fingerprint() + key, ""
}

func (p *provision) lookCertificate(id *identity) (text, do string) {
	path, ca := p.certificateFile(), p.caFile()
	if p.cfg != nil {
		path, ca = cmp.Or(p.cfg.Uplink.Certificate, path), cmp.Or(p.cfg.Uplink.CA, ca)
	}
	switch {
	case id == nil:
		return "without an identity there is none", doCertificate
	case !exists(path):
		return path + " is not there", doCertificate
	}
	got, err := readPair(path, ca)
	if err == nil {
		err = checkCertificate(got.chain, got.roots, id, time.Now())
	}
	if err != nil {
		return err.Error(), doCertificate
	}
	if p.cfg != nil && (p.cfg.Uplink.Certificate == "" || !slices.Contains(p.cfg.Secrets(), clientKeyName)) {
		return path + " is there, and the configuration does not use it", "in uplink: ca: " + ca + ", certificate: " + path + ", key: secret:" + clientKeyName
	}
	return "valid until " + got.chain[0].NotAfter.UTC().Format(time.DateOnly) + ", signed by " + got.chain[0].Issuer.String(), ""
}

func (p *provision) lookTrust() (text, do string) {
	path := p.trustFile()
	if p.cfg != nil {
		path = p.cfg.Trust.File
	}
	if !exists(path) {
		return path + " is not there: no orders are taken", doTrust
	}
	data, err := readPlain(path)
	if err == nil {
		var d *order.Document
		if _, d, err = order.FirstTrust(data); err == nil {
			return fmt.Sprintf("version %d, %s", d.Version, path), ""
		}
	}
	return fmt.Sprintf("%s: %v", path, err), doTrust
}

func (p *provision) lookConfiguration(id *identity) (text, do string) {
	switch {
	case p.cfgErr != nil:
		return firstLine(p.cfgErr), "gridgate check -config " + p.config + " says what is wrong, line by line"
	case p.cfg == nil:
		return p.config + " is not there", doConfig
	case id != nil && (p.cfg.Site != id.site || p.cfg.Gateway != id.gateway):
		return fmt.Sprintf("it is that of %s/%s; this gateway is %s", p.cfg.Site, p.cfg.Gateway, id.name()), doConfig
	}
	if _, err := loadOn(p.config, agent.StoreOf(p.env.Getenv)); err != nil {
		return firstLine(err), "gridgate check -config " + p.config + " says what is wrong, line by line"
	}
	return p.config + ", to " + p.cfg.Uplink.Broker, ""
}

// firstLine gives the first of several problems.
func firstLine(err error) string {
	first, more, _ := strings.Cut(err.Error(), "\n")
	if more != "" {
		first += "; and more"
	}
	return first
}

func (p *provision) lookMeters() (text, do string) {
	n := 0
	if p.cfg != nil {
		cfg := p.cfg
		if base, err := configs.Read(p.config); err == nil {
			if effective, _, err := agent.Effective(base); err == nil {
				cfg = effective
			}
		}
		n = len(cfg.Meters)
	}
	if n == 0 {
		return "there are none in the configuration", "gridgate scan LINE-URL -config-out FILE finds them; or the utility sends them"
	}
	return count(n, "meter"), ""
}

func (p *provision) lookClock(ctx context.Context, control string) (text, do string) {
	now := time.Now().UTC()
	if now.Year() < 2026 {
		return "it shows " + now.Format(time.RFC3339), "date -s '2026-12-31 12:00' (UTC); " + doClock
	}
	if control == "" {
		if control = defaultControl; p.cfg != nil {
			control = p.cfg.Control.Socket
		}
	}
	if r, err := status.Ask(ctx, control); err == nil {
		if r.Clock.Bound == nil {
			return "unsure: " + r.Clock.State + ", " + r.Clock.Reason, doClock
		}
		return fmt.Sprintf("%s, at most %.3g s off", r.Clock.State, *r.Clock.Bound), ""
	}
	if bound, ok := sys.ClockError(); ok {
		return fmt.Sprintf("the kernel's, at most %v off", bound.Round(time.Millisecond)), ""
	}
	if p.cfg != nil && len(p.cfg.Time.Servers) > 0 {
		return "it shows " + now.Format(time.RFC3339) + ", and nobody keeps it right yet", "start the agent, which asks its time servers: systemctl start gridgate"
	}
	return "it shows " + now.Format(time.RFC3339) + ", and nobody keeps it right", doClock
}
