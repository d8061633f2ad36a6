package mqtt_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/secret"
)

// keptKey is a key that is in no file.
type keptKey struct {
	pem string
	err error
}

func (k *keptKey) ClientKey() (secret.Value, error) { return secret.Of(k.pem), k.err }

// TestAKeyThatIsInNoFile is asked for at each handshake, and shown by nothing.
func TestAKeyThatIsInNoFile(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	cert, key := ca.sign("127.0.0.1", -1, 1)
	mine, mineKey := ca.sign("gateway", -1, 1)
	_, otherKey := ca.sign("other", -1, 1)
	b := mqtttest.Mosquitto(t, mqtttest.Config{TLS: true, CertFile: cert, KeyFile: key, Lines: []string{"cafile " + ca.File, "require_certificate true"}})
	read := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	source := &keptKey{pem: read(mineKey)}
	files := mqtt.TLS{CAFile: ca.File, CertFile: mine, Key: source}
	config, err := files.Config()
	if err != nil {
		t.Fatal(err)
	}
	publish(t, dial(t, mqtt.Options{Address: b.Address, TLS: config, ClientID: "g"}), "x", false, "y")
	for name, c := range map[string]struct {
		source keptKey
		want   string
	}{
		"gone":    {keptKey{err: errors.New("it is not there")}, "client certificate: key: it is not there"},
		"another": {keptKey{pem: read(otherKey)}, "client certificate " + mine + " and its key: "},
		"none":    {keptKey{pem: "hunter2"}, "client certificate " + mine + " and its key: "},
	} {
		*source = c.source
		if _, err := files.Config(); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v; want %s", name, err, c.want)
		}
	}
	if _, err := (mqtt.TLS{Key: source}).Config(); err == nil || !strings.Contains(err.Error(), "certificate and key are needed both") {
		t.Errorf("without a certificate: %v", err)
	}
}
