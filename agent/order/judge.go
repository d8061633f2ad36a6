package order

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Here is the gateway that a document came to.
type Here struct {
	Site, Gateway string
	Groups        []string // that it is a member of
	Agent         string   // version of the agent; one that is none satisfies everything
	Now           time.Time
	// Trusted says that Now can be relied on. What is bounded in time waits
	// until it can.
	Trusted bool
	// Seen gives the newest document of a kind that was taken for a target.
	Seen func(k Kind, t Target) (version uint64, hash [32]byte, ok bool)
}

// Verdict is what to do with a document.
type Verdict uint8

// The verdicts.
const (
	Take Verdict = iota // it is new and valid
	Same                // it was taken already: nothing is to be done
	Wait                // it is bounded in time, and the time is not known yet
)

func (v Verdict) String() string {
	switch v {
	case Take:
		return "take"
	case Same:
		return "same"
	case Wait:
		return "wait"
	}
	return "?"
}

// Judge says whether a verified document may take effect here and now. A
// document that is refused is refused with an error of this package.
func (d *Document) Judge(h Here) (Verdict, error) {
	if !d.Target.isFor(h) {
		return Take, fmt.Errorf("%w: %s; this is %s/%s", ErrTarget, d.Target, h.Site, h.Gateway)
	}
	if d.Kind != KindCommand && h.Seen != nil {
		version, hash, ok := h.Seen(d.Kind, d.Target)
		switch {
		case ok && d.Version == version && d.Hash == hash:
			return Same, nil
		case ok && d.Version == version:
			return Take, fmt.Errorf("%w: version %d was taken before with another content", ErrOlder, version)
		case ok && d.Version < version:
			return Take, fmt.Errorf("%w: version %d after %d", ErrOlder, d.Version, version)
		}
	}
	if d.MinAgent != "" && less(h.Agent, d.MinAgent) {
		return Take, fmt.Errorf("%w: it wants %s, this is %s", ErrAgent, d.MinAgent, h.Agent)
	}
	if d.NotBefore.IsZero() && d.NotAfter.IsZero() {
		return Take, nil
	}
	if !h.Trusted {
		return Wait, nil
	}
	if !d.NotAfter.IsZero() && !h.Now.Before(d.NotAfter) {
		return Take, fmt.Errorf("%w: at %s", ErrExpired, d.NotAfter.UTC().Format(time.RFC3339))
	}
	if h.Now.Before(d.NotBefore) {
		return Take, fmt.Errorf("%w: before %s", ErrTooEarly, d.NotBefore.UTC().Format(time.RFC3339))
	}
	return Take, nil
}

func (t Target) isFor(h Here) bool {
	if t.Everybody() {
		return true
	}
	return t.Site == h.Site && (t.Gateway == h.Gateway || t.Group != "" && slices.Contains(h.Groups, t.Group))
}

// parseVersion reads 1.2.3 or v1.2.3, with what follows a hyphen left out.
func parseVersion(s string) (v [3]uint64, err error) {
	plain, _, _ := strings.Cut(strings.TrimPrefix(s, "v"), "-")
	parts := strings.Split(plain, ".")
	if len(parts) != len(v) {
		return v, fmt.Errorf("%q; want a version such as 1.2.3", clip(s))
	}
	for i, p := range parts {
		if v[i], err = strconv.ParseUint(p, 10, 32); err != nil {
			return v, fmt.Errorf("%q; want a version such as 1.2.3", clip(s))
		}
	}
	return v, nil
}

// less says that version a is below b. What is no version is not.
func less(a, b string) bool {
	va, erra := parseVersion(a)
	vb, errb := parseVersion(b)
	return erra == nil && errb == nil && slices.Compare(va[:], vb[:]) < 0
}
