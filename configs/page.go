package configs

import (
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"

	"gridgate/internal/meter"
)

// Page says where the local page, its API and the metrics are served, and to
// whom. The zero value serves nothing.
type Page struct {
	Listen      string // HOST:PORT; empty: nothing is served
	Certificate string // paths of PEM files; empty for no TLS
	Key         string
	// MeterMetrics gives metrics of each meter too.
	MeterMetrics bool
	Tokens       []Token
}

// Role is what a token is good for.
type Role string

// The roles.
const (
	RoleViewer     Role = "viewer"     // how the gateway and its meters do; no readings
	RoleTechnician Role = "technician" // that, and the readings
	RoleConsumer   Role = "consumer"   // the readings of one meter
)

// Token lets somebody in. Of the token itself there is the hash only.
type Token struct {
	Name   meter.ID
	Role   Role
	Meter  meter.ID // of a consumer
	SHA256 [32]byte
}

// DefaultPage is where a page is served that does not say where.
const DefaultPage = "127.0.0.1:8080"

// maxTokens leaves room for a consumer a meter.
const maxTokens = maxMeters + 64

func (p Page) equal(q Page) bool {
	return slices.Equal(p.Tokens, q.Tokens) && p.Listen == q.Listen && p.Certificate == q.Certificate && p.Key == q.Key && p.MeterMetrics == q.MeterMetrics
}

func pageFields() []field[*Page] {
	return []field[*Page]{
		{name: "listen", read: func(r *reader, at string, n *yaml.Node, p *Page) {
			p.Listen = r.checked(at, n, "HOST:PORT or :PORT, such as "+DefaultPage, isListenAddress)
		}},
		section("tls", false, pageTLSFields(), func(p *Page) *Page { return p }),
		{name: "meter_metrics", read: func(r *reader, at string, n *yaml.Node, p *Page) {
			p.MeterMetrics = r.boolean(at, n)
		}},
		{name: "tokens", required: true, below: paths("tokens[].", tokenFields()), read: readTokens},
	}
}

func pageTLSFields() []field[*Page] {
	return []field[*Page]{
		{name: "certificate", required: true, read: func(r *reader, at string, n *yaml.Node, p *Page) {
			p.Certificate = r.path(at, n, 4096)
		}},
		{name: "key", required: true, read: func(r *reader, at string, n *yaml.Node, p *Page) {
			p.Key = r.path(at, n, 4096)
		}},
	}
}

func tokenFields() []field[*Token] {
	return []field[*Token]{
		{name: "name", required: true, read: func(r *reader, at string, n *yaml.Node, t *Token) {
			t.Name = r.id(at, n)
		}},
		{name: "role", required: true, read: func(r *reader, at string, n *yaml.Node, t *Token) {
			t.Role = Role(r.oneOf(at, n, string(RoleViewer), string(RoleTechnician), string(RoleConsumer)))
		}},
		{name: "meter", read: func(r *reader, at string, n *yaml.Node, t *Token) {
			t.Meter = r.id(at, n)
		}},
		{name: "sha256", required: true, read: func(r *reader, at string, n *yaml.Node, t *Token) {
			s, ok := r.text(at, n, "64 hexadecimal digits")
			if sum, err := hex.DecodeString(s); ok && (err != nil || len(sum) != len(t.SHA256)) {
				// What stands there may be the token.
				r.fail(at, n, "", "want the token's SHA-256, 64 hexadecimal digits, and never the token; gridgate token new prints both")
			} else {
				copy(t.SHA256[:], sum)
			}
		}},
	}
}

// readTokens reads the list of tokens.
func readTokens(r *reader, at string, n *yaml.Node, p *Page) {
	r.list(at, n, maxTokens, func(at string, n *yaml.Node) {
		var t Token
		has := mapping(r, at, n, tokenFields(), &t)
		for _, o := range p.Tokens {
			if o.Name == t.Name && t.Name != "" {
				r.fail(at+".name", has["name"], string(t.Name), "is the name of another token too")
			}
			if o.SHA256 == t.SHA256 && t.SHA256 != [32]byte{} {
				r.fail(at+".sha256", has["sha256"], "", "is that of token %s; each wants a token of its own", o.Name)
			}
		}
		switch consumer := t.Role == RoleConsumer; {
		case consumer && has["meter"] == nil:
			r.fail(at+".meter", n, "", "missing; a consumer sees one meter, and this says which")
		case !consumer && t.Role != "" && has["meter"] != nil:
			r.fail(at+".meter", has["meter"], "", "is for the role consumer only; a %s sees every meter", t.Role)
		}
		p.Tokens = append(p.Tokens, t)
	})
}

// page checks what the keys of the page cannot check alone.
func (r *reader) page(d *document, n *yaml.Node) {
	p := &d.Page
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	listen := keyIndex(n, "listen")
	if listen < 0 {
		p.Listen = DefaultPage
	}
	at := n
	if listen >= 0 {
		at = n.Content[listen+1]
	}
	if p.Listen != "" && !isLoopback(p.Listen) && p.Certificate == "" && keyIndex(n, "tls") < 0 {
		r.fail("page.listen", at, p.Listen, "needs page.tls: tokens and readings would pass the network for all to see; only a loopback address such as %s goes without", DefaultPage)
	}
	i := keyIndex(n, "tokens")
	if i < 0 || n.Content[i+1].Kind != yaml.SequenceNode {
		return
	}
	list := n.Content[i+1]
	if len(list.Content) == 0 {
		r.fail("page.tokens", list, "", "is empty, so that nobody is let in: gridgate token new makes one; or leave page out")
	}
	for k, t := range p.Tokens {
		if t.Meter == "" || k >= len(list.Content) {
			continue
		}
		if !slices.ContainsFunc(d.rawMeters, func(m rawMeter) bool { return m.ID == t.Meter }) {
			j := keyIndex(list.Content[k], "meter")
			r.fail("page.tokens["+strconv.Itoa(k)+"].meter", list.Content[k].Content[j+1], string(t.Meter), "there is no such meter")
		}
	}
}

// isListenAddress says whether s is HOST:PORT or :PORT with an IP address, in
// brackets if it is of version 6, or localhost.
func isListenAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
		return false
	}
	if host == "" || host == "localhost" {
		return true
	}
	_, err = netip.ParseAddr(host)
	return err == nil
}

// isLoopback says whether only this machine reaches what listens there.
func isLoopback(listen string) bool {
	host, _, _ := net.SplitHostPort(listen)
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}
