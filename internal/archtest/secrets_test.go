package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// secretTypes are the types that show no secret: a field that holds one is of one
// of them.
func secretTypes() []string {
	return []string{"secret.Value", "address.Secret", "dlms.Secret", "security.Secret", "security.Key"}
}

// secretNames are what fields are called that hold one, whatever the case of their
// letters; and what their names end in.
func secretNames() (names, endings []string) {
	names = []string{
		"password", "passwd", "pass", "passphrase", "secret", "secrets", "ek", "ak", "kek", "mk", "psk", "sk", "token", "identity",
		"privatekey", "signingkey", "masterkey", "pin",
	}
	return names, []string{"password", "passphrase", "secret", "token", "privatekey"}
}

// noSecrets are fields that are called so and hold none: "package.type.field".
func noSecrets() map[string]string {
	return map[string]string{
		"agent.pushed.secrets":                   "sealed",
		"agent/order.Document.Secrets":           "sealed",
		"agent/status.SecretIdentity.SigningKey": "the public half",
		"cmd/gridfog.signing.password":           "the path of a file",
		"cmd/gridfog.signing.secrets":            "the path of a file of sealed ones",
		"configs.Config.secrets":                 "names",
	}
}

// mayHoldPlain are packages whose business is to play a meter or a broker: their
// secrets are everybody's.
func mayHoldPlain() []string {
	return []string{"cmd/metersim", "dlms/dlmstest", "drivers/drivertest", "internal/mqtt/mqtttest", "internal/proctest", "scripts"}
}

// plainField is a field that may show a secret.
type plainField struct{ name, kind string }

// plainFields gives the fields of structures in a file whose names are those of
// secrets, and whose types show them: text, octets, and what is made of those.
func plainFields(pkg, name string, src []byte) (found []plainField, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	names, endings := secretNames()
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		ast.Inspect(spec.Type, func(n ast.Node) bool {
			s, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, f := range s.Fields.List {
				for _, id := range f.Names {
					low := strings.ToLower(id.Name)
					if kind := showing(f.Type); kind != "" && (slices.Contains(names, low) ||
						slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(low, e) })) {
						found = append(found, plainField{fmt.Sprintf("%s.%s.%s", pkg, spec.Name.Name, id.Name), kind})
					}
				}
			}
			return true
		})
		return false
	})
	return found, nil
}

// showing gives a type that shows what is in it; empty: it does not.
func showing(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.Ident:
		if slices.Contains([]string{"string", "any", "byte", "rune"}, t.Name) {
			return t.Name
		}
	case *ast.ArrayType:
		if kind := showing(t.Elt); kind != "" {
			return "[]" + kind
		}
	case *ast.StarExpr:
		return showing(t.X)
	case *ast.MapType:
		return showing(t.Value)
	case *ast.SelectorExpr:
		if pkg, ok := t.X.(*ast.Ident); ok {
			if name := pkg.Name + "." + t.Sel.Name; name == "bytes.Buffer" || name == "strings.Builder" || name == "json.RawMessage" {
				return name
			}
		}
	}
	return ""
}

// TestSecretsAreOfTheirTypes: no structure holds a secret as text or octets, which
// a log or an error might show.
func TestSecretsAreOfTheirTypes(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	g, err := readGraph(root)
	if err != nil {
		t.Fatal(err)
	}
	allowed, used, files := noSecrets(), map[string]bool{}, 0
	for dir := range g {
		if slices.ContainsFunc(mayHoldPlain(), func(p string) bool { return dir == p || strings.HasPrefix(dir, p+"/") }) {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := e.Name()
			if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				continue
			}
			src, err := os.ReadFile(filepath.Join(root, dir, name))
			if err != nil {
				t.Fatal(err)
			}
			files++
			fields, err := plainFields(dir, name, src)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range fields {
				if _, ok := allowed[f.name]; ok {
					used[f.name] = true
					continue
				}
				t.Errorf("%s is a %s, which a log or an error may show: want one of %q, or a line in noSecrets that says why it is none", f.name, f.kind, secretTypes())
			}
		}
	}
	for name := range allowed {
		if !used[name] {
			t.Errorf("%s is listed in noSecrets and is not there", name)
		}
	}
	if files < 200 {
		t.Errorf("only %d files were looked at", files)
	}
}

// TestPlainFieldsAreFound: the test above sees them.
func TestPlainFieldsAreFound(t *testing.T) {
	t.Parallel()
	src := `package p
type a struct {
	user, Password string
	ek [16]byte
	in struct { BrokerPassword []byte }
	tokens int
	passwordFile string
	secret secret.Value
	psk *string
	ak map[string][]byte
	KEK func() string
}
type b[T any] struct { sk T; x []struct{ PIN string } }
`
	found, err := plainFields("p", "p.go", []byte(src))
	var all []string
	for _, f := range found {
		all = append(all, f.name)
	}
	if want := []string{"p.a.Password", "p.a.ek", "p.a.psk", "p.a.ak", "p.a.BrokerPassword", "p.b.PIN"}; err != nil || !slices.Equal(all, want) {
		t.Errorf("%q, %v; want %q", all, err, want)
	}
}
