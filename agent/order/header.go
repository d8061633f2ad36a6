package order

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"gridgate/internal/meter"
)

// Kind is what a document is.
type Kind string

// The kinds.
const (
	KindTrust    Kind = "trust"
	KindConfig   Kind = "config"
	KindCommand  Kind = "command"
	KindFirmware Kind = "firmware"
)

// Format is the version of documents that this package reads.
const Format = 1

// Document is a document whose signatures were verified.
type Document struct {
	Kind   Kind
	Target Target
	// Version rises within a kind and target; commands have an ID instead.
	Version uint64
	ID      string
	// NotBefore and NotAfter bound when it may take effect; zero: no bound.
	NotBefore, NotAfter time.Time
	MinAgent            string // the oldest agent that understands it; empty: any

	// Secrets of a configuration, each sealed to the gateways that it is for.
	Secrets map[string][]byte

	Payload []byte // after the header
	Hash    [32]byte
	signed  map[Role][]string // ids of keys
	line    int               // of the payload's first, for errors
}

// Signed says how many keys of a role have signed.
func (d *Document) Signed(r Role) int { return len(d.signed[r]) }

// SignedBy gives the ids of the keys of a role that have signed, as minisign
// writes them: 16 hexadecimal digits.
func (d *Document) SignedBy(r Role) []string { return slices.Clone(d.signed[r]) }

// Target is whom a document is for: one gateway, the members of a group at a
// site, or, for trust alone, everybody.
type Target struct {
	Site, Gateway, Group string
}

// Everybody is written '*'.
func (t Target) Everybody() bool { return t == Target{} }

func (t Target) String() string {
	switch {
	case t.Everybody():
		return "*"
	case t.Group != "":
		return t.Site + "/_group/" + t.Group
	}
	return t.Site + "/" + t.Gateway
}

// ParseTarget reads site/gateway, site/_group/group or *.
func ParseTarget(s string) (Target, error) {
	if s == "*" {
		return Target{}, nil
	}
	parts := strings.Split(s, "/")
	if len(parts) == 3 && parts[1] == "_group" {
		parts = []string{parts[0], parts[2]}
	} else if len(parts) != 2 {
		return Target{}, fmt.Errorf("%q; want SITE/GATEWAY or SITE/_group/GROUP", clip(s))
	}
	for _, p := range parts {
		if _, err := meter.ParseID(p); err != nil {
			return Target{}, fmt.Errorf("%q: %q; want 1 to 32 characters of a-z, 0-9 and '-'", clip(s), clip(p))
		}
	}
	if strings.Contains(s, "/_group/") {
		return Target{Site: parts[0], Group: parts[1]}, nil
	}
	return Target{Site: parts[0], Gateway: parts[1]}, nil
}

type header struct {
	Gridgate  int     `yaml:"gridgate"`
	Kind      Kind    `yaml:"kind"`
	Target    string  `yaml:"target"`
	Version   *uint64 `yaml:"version"`
	ID        string  `yaml:"id"`
	NotBefore string  `yaml:"not_before"`
	NotAfter  string  `yaml:"not_after"`
	MinAgent  string  `yaml:"min_agent"`

	Secrets yaml.Node `yaml:"secrets"` // as a node: what is wrong with it is told without it
}

// parse reads a body.
func parse(body []byte) (*Document, error) {
	head, payload, ok := bytes.Cut(body, []byte("\n---\n"))
	if !ok {
		return nil, fmt.Errorf("%w: it has no line '---' between header and payload", ErrMalformed)
	}
	head = append(bytes.Clone(head), '\n')
	var h header
	if err := decode(head, 1, &h); err != nil {
		return nil, err
	}
	d := &Document{Kind: h.Kind, ID: h.ID, MinAgent: h.MinAgent, Payload: payload, line: bytes.Count(head, []byte("\n")) + 2}
	wrong := func(key, format string, args ...any) error {
		return fmt.Errorf("%w: header: %s: %s", ErrMalformed, key, fmt.Sprintf(format, args...))
	}
	if h.Gridgate != Format {
		return nil, wrong("gridgate", "%d; this agent reads documents of format %d", h.Gridgate, Format)
	}
	switch h.Kind {
	case KindTrust, KindConfig, KindFirmware:
		if h.Version == nil || *h.Version == 0 {
			return nil, wrong("version", "missing; want a number that is higher than that of the one before")
		}
		if h.ID != "" {
			return nil, wrong("id", "only commands have one")
		}
		d.Version = *h.Version
	case KindCommand:
		if h.Version != nil {
			return nil, wrong("version", "a command has an id instead")
		}
		if _, err := meter.ParseID(h.ID); err != nil {
			return nil, wrong("id", "%q; want 1 to 32 characters of a-z, 0-9 and '-'", clip(h.ID))
		}
		if h.NotAfter == "" {
			return nil, wrong("not_after", "missing; a command is valid for a time")
		}
	default:
		return nil, fmt.Errorf("%w: header: kind: %q; want trust, config, command or firmware", ErrKind, clip(string(h.Kind)))
	}
	var err error
	if d.Target, err = ParseTarget(h.Target); err != nil {
		return nil, wrong("target", "%v", err)
	}
	if d.Target.Everybody() && h.Kind != KindTrust {
		return nil, wrong("target", "'*' is for trust documents; want SITE/GATEWAY or SITE/_group/GROUP")
	}
	for _, t := range []struct {
		key, text string
		into      *time.Time
	}{{"not_before", h.NotBefore, &d.NotBefore}, {"not_after", h.NotAfter, &d.NotAfter}} {
		if t.text == "" {
			continue
		}
		if *t.into, err = time.Parse(time.RFC3339, t.text); err != nil {
			return nil, wrong(t.key, "%q; want a time such as 2026-11-22T10:00:00Z", clip(t.text))
		}
	}
	if !d.NotAfter.IsZero() && !d.NotBefore.Before(d.NotAfter) {
		return nil, wrong("not_after", "%s is not after not_before", h.NotAfter)
	}
	if d.Secrets, err = h.secrets(); err != nil {
		return nil, wrong("secrets", "%v", err)
	}
	if h.MinAgent != "" {
		if _, err := parseVersion(h.MinAgent); err != nil {
			return nil, wrong("min_agent", "%v", err)
		}
	}
	return d, nil
}

// clip shortens what is shown of a document.
func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
