package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"gridgate/internal/meter"
)

// fogUnit is the organizational unit that makes a certificate a fog operator's,
// where there is no list.
const fogUnit = "fog"

// identity is who a client is by its certificate.
type identity struct {
	name          string // as refusals tell it
	fog           bool
	site, gateway meter.ID // of a gateway
	// groups are those of the gateway's site whose orders it may read; nil is
	// all, where nobody has listed them.
	groups []string
}

// gatewayNames gives the names that a certificate may have as a gateway: those
// of its URIs, gridgate://SITE/GATEWAY, or else its common name, SITE/GATEWAY.
func gatewayNames(c *x509.Certificate) []string {
	var names []string
	for _, u := range c.URIs {
		if u.Scheme == "gridgate" {
			names = append(names, u.Host+u.Path)
		}
	}
	if len(names) == 0 {
		names = []string{c.Subject.CommonName}
	}
	return names
}

// parseGateway reads SITE/GATEWAY.
func parseGateway(s string) (site, gateway meter.ID, err error) {
	a, b, found := strings.Cut(s, "/")
	if !found {
		return "", "", fmt.Errorf("%q: want SITE/GATEWAY", s)
	}
	site, err1 := meter.ParseID(a)
	gateway, err2 := meter.ParseID(b)
	if err := errors.Join(err1, err2); err != nil {
		return "", "", fmt.Errorf("%q: %w", s, err)
	}
	return site, gateway, nil
}

// identify tells who shows a certificate that was verified. list may be nil.
func identify(c *x509.Certificate, list *accessList) (identity, error) {
	names := gatewayNames(c)
	if list != nil {
		return list.identify(c, names)
	}
	if slices.Contains(c.Subject.OrganizationalUnit, fogUnit) {
		return identity{name: "fog " + c.Subject.CommonName, fog: true}, nil
	}
	if len(names) > 1 {
		return unknown(c), fmt.Errorf("it names %d gateways: want one", len(names))
	}
	site, gateway, err := parseGateway(names[0])
	if err != nil {
		return unknown(c), fmt.Errorf("it names neither a gateway (SITE/GATEWAY) nor, by the unit %q, a fog operator", fogUnit)
	}
	return identity{name: "gateway " + names[0], site: site, gateway: gateway}, nil
}

// unknown names who is nobody.
func unknown(c *x509.Certificate) identity {
	return identity{name: fmt.Sprintf("certificate %q", clip(c.Subject.String(), maxTold))}
}

// mayWrite says whether a client may publish to a topic.
func (who *identity) mayWrite(topic string) bool {
	if strings.HasPrefix(topic, "$") || topic == "" {
		return false
	}
	if !who.fog {
		return strings.HasPrefix(topic, fmt.Sprintf("gridgate/1/%s/%s/up/", who.site, who.gateway))
	}
	// What is made of the readings, of the bridge for one, lies elsewhere.
	parts := strings.SplitN(topic, "/", 7)
	switch {
	case parts[0] != "gridgate":
		return true
	case len(parts) == 5 && parts[3] == "_firmware":
		return parts[1] == "1"
	case len(parts) > 5 && parts[3] == "_group":
		return parts[1] == "1" && parts[5] == "down"
	default:
		return len(parts) > 5 && parts[1] == "1" && parts[4] == "down"
	}
}

// mayRead says whether a client may subscribe to a filter, or be given a topic.
func (who *identity) mayRead(filter string) bool {
	if who.fog {
		return true
	}
	if strings.HasPrefix(filter, fmt.Sprintf("gridgate/1/%s/%s/down/", who.site, who.gateway)) {
		return true
	}
	if part, ok := strings.CutPrefix(filter, fmt.Sprintf("gridgate/1/%s/_firmware/", who.site)); ok {
		return part != ""
	}
	rest, ok := strings.CutPrefix(filter, fmt.Sprintf("gridgate/1/%s/_group/", who.site))
	group, below, found := strings.Cut(rest, "/")
	return ok && found && strings.HasPrefix(below, "down/") && (who.groups == nil || slices.Contains(who.groups, group))
}

// accessList is who is let in, where the operator has listed it.
//
//	gateway SITE/GATEWAY [GROUP…]
//	fog COMMON-NAME
type accessList struct {
	gateways map[string][]string // groups by name
	fogs     map[string]bool
}

// maxAccessList bounds a list, in bytes.
const maxAccessList = 16 << 20

func parseAccessList(path string, b []byte) (*accessList, error) {
	l := &accessList{gateways: map[string][]string{}, fogs: map[string]bool{}}
	var errs []error
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	number := 0
	for lines.Scan() {
		number++
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if err := l.add(words[0], strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), words[0])), words[1:]); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", path, number, err))
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s:%d: %w", path, number+1, err))
	}
	if len(errs) == 0 && len(l.gateways)+len(l.fogs) == 0 {
		errs = append(errs, fmt.Errorf("%s: it lists nobody, so nobody would be let in", path))
	}
	return l, errors.Join(errs...)
}

func (l *accessList) add(kind, rest string, words []string) error {
	switch {
	case kind == "fog" && rest != "":
		l.fogs[rest] = true
		return nil
	case kind == "gateway" && len(words) > 0:
		name, groups := words[0], words[1:]
		if _, _, err := parseGateway(name); err != nil {
			return err
		}
		for _, g := range groups {
			if _, err := meter.ParseID(g); err != nil {
				return fmt.Errorf("group: %w", err)
			}
		}
		if _, twice := l.gateways[name]; twice {
			return fmt.Errorf("gateway %s is listed twice", name)
		}
		l.gateways[name] = append([]string{}, groups...)
		return nil
	default:
		return fmt.Errorf("%q: want `gateway SITE/GATEWAY [GROUP…]` or `fog COMMON-NAME`", strings.TrimSpace(kind+" "+rest))
	}
}

func (l *accessList) identify(c *x509.Certificate, names []string) (identity, error) {
	if l.fogs[c.Subject.CommonName] {
		return identity{name: "fog " + c.Subject.CommonName, fog: true}, nil
	}
	if len(names) == 1 {
		if groups, ok := l.gateways[names[0]]; ok {
			site, gateway, err := parseGateway(names[0])
			return identity{name: "gateway " + names[0], site: site, gateway: gateway, groups: groups}, err
		}
	}
	return unknown(c), errors.New("it is not in the access list")
}

// access is a hook that lets in who has a certificate, each to its own topics.
type access struct {
	broker.HookBase
	path     string // of the access list; "" has none
	refusals *refusals
	connack  func(*broker.Client, packets.Code)

	mu   sync.Mutex // guards the list and when it is from
	date time.Time
	size int64
	list *accessList
}

// maxTold bounds how much of what a client chose is told, in characters.
const maxTold = 200

// guest is the connection of a client. who is set before the broker knows the
// client, and stays for its session when the connection is gone.
type guest struct {
	net.Conn
	exchanged exchange
	who       *identity // where certificates say so
}

// shown is the certificate that the client has shown, nil for none.
func (g *guest) shown() *x509.Certificate {
	secure, ok := g.Conn.(*tls.Conn)
	if !ok || len(secure.ConnectionState().PeerCertificates) == 0 {
		return nil
	}
	return secure.ConnectionState().PeerCertificates[0]
}

func (*access) ID() string { return "access" }

func (*access) Provides(b byte) bool {
	return b == broker.OnConnect || b == broker.OnConnectAuthenticate || b == broker.OnACLCheck
}

// load reads the access list, if it is another than the one known. A list that
// is wrong changes nothing.
func (a *access) load() error {
	if a.path == "" {
		return nil
	}
	info, err := os.Stat(a.path)
	if err != nil {
		return err
	}
	if a.list != nil && info.ModTime().Equal(a.date) && info.Size() == a.size {
		return nil
	}
	if info.Size() > maxAccessList {
		return fmt.Errorf("%s: longer than %d bytes", a.path, maxAccessList)
	}
	b, err := os.ReadFile(a.path)
	if err != nil {
		return err
	}
	list, err := parseAccessList(a.path, b)
	if err != nil {
		return err
	}
	a.list, a.date, a.size = list, info.ModTime(), info.Size()
	return nil
}

// OnConnect finds out who a client is. It is called before the client is let
// in, and refuses in words that MQTT 3.1.1 has.
func (a *access) OnConnect(cl *broker.Client, p packets.Packet) error {
	who, err := a.identify(cl)
	if err != nil {
		a.refusals.add(who.name, "connect", err.Error())
		a.connack(cl, packets.ErrBadUsernameOrPassword)
		return packets.ErrNotAuthorized
	}
	if p.Connect.WillFlag && !who.mayWrite(p.Connect.WillTopic) {
		a.refusals.add(who.name, "will", clip(p.Connect.WillTopic, maxTold))
		a.connack(cl, packets.ErrBadUsernameOrPassword)
		return packets.ErrNotAuthorized
	}
	// A client id is nobody's property: without the name before it a gateway
	// could take over another's session, with all that waits in it.
	cl.ID = who.name + ": " + cl.ID
	of(cl).who = &who
	return nil
}

// of gives the connection of a client, nil when it is not one of ours.
func of(cl *broker.Client) *guest {
	g, _ := cl.Net.Conn.(*guest)
	return g
}

func (a *access) identify(cl *broker.Client) (identity, error) {
	g := of(cl)
	if g == nil || g.shown() == nil {
		return identity{name: "client " + clip(cl.ID, maxTold)}, errors.New("no client certificate")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(); err != nil {
		a.refusals.add("broker", "access list", err.Error())
		if a.list == nil {
			return identity{name: "client " + clip(cl.ID, maxTold)}, err
		}
	}
	return identify(g.shown(), a.list)
}

func (*access) OnConnectAuthenticate(cl *broker.Client, _ packets.Packet) bool {
	return of(cl) != nil && of(cl).who != nil
}

// OnACLCheck also tells a client of MQTT 3.1.1 that what it published was
// refused: that version has no word for it, so a PUBACK would be a lie, and the
// connection ends (MQTT 3.1.1, 3.3.5).
func (a *access) OnACLCheck(cl *broker.Client, topic string, write bool) bool {
	g := of(cl)
	if g == nil || g.who == nil {
		return false
	}
	who := g.who
	if !write {
		if who.mayRead(topic) {
			return true
		}
		a.refusals.add(who.name, "subscribe", clip(topic, maxTold))
		return false
	}
	if who.mayWrite(topic) {
		return true
	}
	a.refusals.add(who.name, "publish", clip(topic, maxTold))
	if cl.Properties.ProtocolVersion < 5 {
		_ = g.Close() // and not cl.Stop: the will is to be published
	}
	return false
}
