package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/agent/status"
	"gridgate/agent/vault"
	"gridgate/configs"
	"gridgate/internal/secret"
)

// Where the service alone has the store's key the agent is believed; where nobody
// has it that is a fault, and where there never was one it is none.
func TestSecretFindings(t *testing.T) {
	t.Parallel()
	cfg := &configs.Config{}
	cfg.Buffer.Path = t.TempDir()
	v := vault.Open(VaultDir(cfg.Buffer.Path), nil)
	find := func(secrets []status.Secret, err error) string {
		all := SecretFindings(func(string) string { return "" }, func(*configs.Config) ([]status.Secret, error) { return secrets, err })(cfg)
		return strings.TrimSpace(fmt.Sprintln(all))
	}
	if got := find(nil, status.ErrNoAgent); got != "[]" {
		t.Errorf("without a store: %s", got)
	}
	if _, err := v.Ensure(); err != nil {
		t.Fatal(err)
	}
	if err := v.Set("broker", secret.Of("hunter2")); err != nil {
		t.Fatal(err)
	}
	if got := find(nil, status.ErrNoAgent); !strings.HasPrefix(got, "[ok ") {
		t.Errorf("with a key: %s", got)
	}
	if err := os.Remove(filepath.Join(v.Dir(), "identity")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		secrets []status.Secret
		err     error
		want    string
	}{
		{nil, status.ErrNoAgent, "[fail secrets   the gateway's key is not to be had"},
		{[]status.Secret{{Name: "broker"}}, nil, "[ok   secrets   the service alone has"},
		{[]status.Secret{{Name: "broker", Problem: vault.ErrNoIdentity.Error()}}, nil, "[fail secrets   broker: the gateway's key is not to be had"},
	} {
		if got := find(c.secrets, c.err); !strings.HasPrefix(got, c.want) {
			t.Errorf("%v, %v: %s; want %s", c.secrets, c.err, got, c.want)
		}
	}
}
