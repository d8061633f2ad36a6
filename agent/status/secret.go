package status

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Secrets is the agent's store of secrets, for tools that look after it. None of
// them is ever told.
type Secrets interface {
	// Identity gives the gateway's public keys, and makes the private one where
	// there is none; with renew another one.
	Identity(renew bool) (SecretIdentity, error)
	List() ([]Secret, error)
	// Set takes a secret that is sealed to the gateway's key.
	Set(ctx context.Context, name string, sealed []byte) error
	Remove(ctx context.Context, name string, force bool) error
}

// SecretIdentity is what others know a gateway's key by.
type SecretIdentity struct {
	Recipient  string `json:"recipient"`             // age1…, to which secrets are sealed
	SigningKey string `json:"signing_key,omitempty"` // Ed25519, in hexadecimal digits: of archives
	Protection string `json:"protection"`            // how the private key is kept
}

// Secret is a secret as it is listed.
type Secret struct {
	Name    string    `json:"name"`
	Set     time.Time `json:"set"`               // when its file was written
	Problem string    `json:"problem,omitempty"` // why it cannot be used
}

// sealedMost is the longest sealed secret that is taken, in octets.
const sealedMost = 64 << 10

// secretRequest asks something of the store; what is set follows the line.
type secretRequest struct {
	Do    string `json:"do"` // identity, list, set or remove
	Name  string `json:"name,omitempty"`
	Renew bool   `json:"renew,omitempty"`
	Force bool   `json:"force,omitempty"`
}

type secretReply struct {
	OK       bool            `json:"ok"`
	Identity *SecretIdentity `json:"identity,omitempty"`
	Secrets  []Secret        `json:"secrets,omitempty"`
}

// secret answers a request to the store.
func (c *Control) secret(ctx context.Context, conn *net.UnixConn, in *bufio.Reader, r *secretRequest, size int) {
	done := secretReply{OK: true}
	var err error
	switch {
	case r == nil || c.cfg.Secrets == nil:
		err = errors.New("this agent has no store of secrets")
	case r.Do == "identity":
		var id SecretIdentity
		id, err = c.cfg.Secrets.Identity(r.Renew)
		done.Identity = &id
	case r.Do == "list":
		done.Secrets, err = c.cfg.Secrets.List()
	case r.Do == "set" && (size <= 0 || size > sealedMost):
		err = fmt.Errorf("secret: want a size of 1 to %d octets, and the sealed secret after this line", sealedMost)
	case r.Do == "set":
		sealed := make([]byte, size)
		_ = conn.SetReadDeadline(time.Now().Add(requestTime))
		if _, err = io.ReadFull(in, sealed); err == nil {
			err = c.cfg.Secrets.Set(ctx, r.Name, sealed)
		}
	case r.Do == "remove":
		err = c.cfg.Secrets.Remove(ctx, r.Name, r.Force)
	default:
		err = errors.New("secret: do: want identity, list, set or remove")
	}
	if err != nil {
		answer(conn, reply{Error: err.Error()})
		return
	}
	answer(conn, done)
}

// AgentSecrets is the store of the agent at Path; ErrNoAgent where there is none.
type AgentSecrets struct{ Path string }

// Identity gives the gateway's public keys: see Secrets.
func (a AgentSecrets) Identity(ctx context.Context, renew bool) (SecretIdentity, error) {
	done, err := a.ask(ctx, secretRequest{Do: "identity", Renew: renew}, nil)
	if err == nil && done.Identity == nil {
		err = fmt.Errorf("control socket %s: no answer about the identity", a.Path)
	}
	if err != nil {
		return SecretIdentity{}, err
	}
	return *done.Identity, nil
}

// List gives the secrets, none of them told.
func (a AgentSecrets) List(ctx context.Context) ([]Secret, error) {
	done, err := a.ask(ctx, secretRequest{Do: "list"}, nil)
	return done.Secrets, err
}

// Set hands over a secret that is sealed to the gateway's key.
func (a AgentSecrets) Set(ctx context.Context, name string, sealed []byte) error {
	_, err := a.ask(ctx, secretRequest{Do: "set", Name: name}, sealed)
	return err
}

// Remove takes a secret away.
func (a AgentSecrets) Remove(ctx context.Context, name string, force bool) error {
	_, err := a.ask(ctx, secretRequest{Do: "remove", Name: name, Force: force}, nil)
	return err
}

func (a AgentSecrets) ask(ctx context.Context, r secretRequest, body []byte) (done secretReply, err error) {
	conn, line, err := call(ctx, a.Path, request{Verb: "secret", Secret: &r, Size: len(body)}, body...)
	if err != nil {
		return done, err
	}
	_ = conn.Close()
	if err := json.Unmarshal(line, &done); err != nil || !done.OK {
		return done, fmt.Errorf("control socket %s: %.100q is no answer about secrets", a.Path, line)
	}
	return done, nil
}
