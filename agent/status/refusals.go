package status

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// Refusals is how often in a row meters refused credentials, which go by names
// that are made with a salt and do not tell them.
type Refusals interface {
	Salt() ([]byte, error)
	Refusals(credentials string) (n int, last time.Time)
	Refused(credentials string, at time.Time) (n int, err error)
	Accepted(credentials string) error
	WasAccepted(credentials string) bool
}

// refusing asks for the refusals of credentials; done says what a meter said to
// them just now. Without credentials it asks for the salt.
type refusing struct {
	Credentials string `json:"credentials,omitempty"`
	Done        string `json:"done,omitempty"` // refused or accepted
}

type refusals struct {
	OK       bool   `json:"ok"`
	Salt     string `json:"salt,omitempty"`
	Count    int    `json:"count"`
	Last     int64  `json:"last"` // in seconds since 1970
	Accepted bool   `json:"accepted"`
}

func (c *Control) refuse(conn *net.UnixConn, r *refusing) {
	if r == nil || c.cfg.Refusals == nil {
		answer(conn, reply{Error: "refusals: this agent does not count them"})
		return
	}
	done, err := refuse(c.cfg.Refusals, *r)
	if err != nil {
		answer(conn, reply{Error: err.Error()})
		return
	}
	answer(conn, done)
}

// longestName bounds the name of credentials.
const longestName = 128

func refuse(s Refusals, r refusing) (refusals, error) {
	done := refusals{OK: true}
	if len(r.Credentials) > longestName {
		return done, fmt.Errorf("refusals: credentials of %d octets, want at most %d", len(r.Credentials), longestName)
	}
	var err error
	switch r.Done {
	case "refused":
		_, err = s.Refused(r.Credentials, time.Now())
	case "accepted":
		err = s.Accepted(r.Credentials)
	case "":
	default:
		err = errors.New("refusals: done: want refused or accepted")
	}
	if err != nil {
		return done, err
	}
	if r.Credentials == "" {
		salt, err := s.Salt()
		done.Salt = hex.EncodeToString(salt)
		return done, err
	}
	n, last := s.Refusals(r.Credentials)
	done.Count, done.Last, done.Accepted = n, last.Unix(), s.WasAccepted(r.Credentials)
	return done, nil
}

// AgentRefusals are the refusals that the agent at Path counts; ErrNoAgent where
// there is none.
type AgentRefusals struct {
	Context context.Context //nolint:containedctx // of the command that asks
	Path    string
}

// Salt gives what names of credentials are made with.
func (a AgentRefusals) Salt() ([]byte, error) {
	done, err := a.ask(refusing{})
	if err != nil {
		return nil, err
	}
	return hex.DecodeString(done.Salt)
}

// Refusals gives how often in a row credentials were refused, when last, and
// whether a meter took them before.
func (a AgentRefusals) Refusals(credentials string) (n int, last time.Time, accepted bool, err error) {
	done, err := a.ask(refusing{Credentials: credentials})
	return done.Count, time.Unix(done.Last, 0), done.Accepted, err
}

// Refused counts a refusal.
func (a AgentRefusals) Refused(credentials string) error {
	_, err := a.ask(refusing{credentials, "refused"})
	return err
}

// Accepted says that a meter took the credentials.
func (a AgentRefusals) Accepted(credentials string) error {
	_, err := a.ask(refusing{credentials, "accepted"})
	return err
}

func (a AgentRefusals) ask(r refusing) (done refusals, err error) {
	conn, line, err := call(a.Context, a.Path, request{Verb: "refusals", Refusals: &r})
	if err != nil {
		return done, err
	}
	_ = conn.Close()
	if err := json.Unmarshal(line, &done); err != nil || !done.OK {
		return done, fmt.Errorf("control socket %s: %.100q is no answer about refusals", a.Path, line)
	}
	return done, nil
}
