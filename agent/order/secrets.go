package order

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxSecrets is how many secrets a document may bring.
const maxSecrets = 1024

// armour is how a sealed secret begins: this package opens none.
const armour = "-----BEGIN AGE ENCRYPTED FILE-----"

// secrets gives the sealed secrets of a header. An error quotes names only: who
// writes a document by hand may have put a secret itself there.
func (h *header) secrets() (map[string][]byte, error) {
	if h.Secrets.IsZero() {
		return nil, nil
	}
	if h.Kind != KindConfig {
		return nil, errors.New("only configurations bring secrets")
	}
	return readSecrets(&h.Secrets)
}

func readSecrets(n *yaml.Node) (map[string][]byte, error) {
	switch {
	case n.Kind != yaml.MappingNode:
		return nil, errors.New("want NAME: | and a sealed secret, for each")
	case len(n.Content)/2 > maxSecrets:
		return nil, fmt.Errorf("%d of them; want at most %d", len(n.Content)/2, maxSecrets)
	}
	all := make(map[string][]byte, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, sealed := n.Content[i].Value, n.Content[i+1]
		_, twice := all[name]
		switch {
		case name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
			return nil, fmt.Errorf("%q; want names of 1 to 64 characters of a-z, 0-9 and '-'", clip(name))
		case twice:
			return nil, fmt.Errorf("%s is there twice", name)
		case sealed.Kind != yaml.ScalarNode || !strings.HasPrefix(sealed.Value, armour+"\n"):
			return nil, fmt.Errorf("%s: want what gridfog secret seal gives, or age -a: text that begins with %s; a secret itself has no place here", name, armour)
		}
		all[name] = []byte(sealed.Value)
	}
	return all, nil
}

// ReadSecrets reads entries as they stand in a header below the key secrets.
func ReadSecrets(data []byte) (map[string][]byte, error) {
	var n yaml.Node
	if err := decode(data, 1, &n); err != nil {
		return nil, err
	}
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = *n.Content[0]
	}
	return readSecrets(&n)
}

// AppendSecret appends an entry that ReadSecrets reads.
func AppendSecret(b []byte, name string, sealed []byte) []byte {
	b = append(append(b, name...), ": |\n"...)
	for line := range bytes.Lines(sealed) {
		b = append(append(append(b, "  "...), bytes.TrimRight(line, "\r\n")...), '\n')
	}
	return b
}
