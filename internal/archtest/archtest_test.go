package archtest

import (
	"errors"
	"strings"
	"testing"
)

const root = "../.."

func report(t *testing.T, wrong []string) {
	t.Helper()
	for _, w := range wrong {
		t.Error(w)
	}
}

// TestTree holds the rules on the tree as it is.
func TestTree(t *testing.T) {
	t.Parallel()
	g, err := readGraph(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(g) < 10 || g["internal/meter"] == nil || !g["internal/meter"].imports["dlms/obis"] {
		t.Fatalf("the tree was not read: %d packages", len(g))
	}
	for name, check := range map[string]func(graph) []string{
		"drawing":       func(g graph) []string { return checkDrawing(g, parseDrawing(drawing)) },
		"stages":        checkStages,
		"layers":        checkLayers,
		"owners":        checkOwners,
		"forbidden":     func(g graph) []string { return checkForbidden(g, forbidden()) },
		"firmware":      checkFirmware,
		"test packages": checkTestPackages,
		"length":        checkLength,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			report(t, check(g))
		})
	}
}

// TestLinked follows the firmware's imports through the modules from elsewhere.
func TestLinked(t *testing.T) {
	t.Parallel()
	g, err := readGraph(root)
	if err != nil {
		t.Fatal(err)
	}
	e, err := readElsewhere(root)
	if err != nil {
		t.Fatal(err)
	}
	by, err := g.linked("cmd/gridgate", e.imports)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := by["go.yaml.in/yaml/v4/internal/libyaml"]; !ok {
		t.Fatalf("imports from elsewhere were not followed: %d packages", len(by))
	}
	report(t, checkLinked(by))
}

// TestDrawing keeps the drawing itself to the rules, so that nobody draws what
// must not be.
func TestDrawing(t *testing.T) {
	t.Parallel()
	g := graph{}
	for p, may := range parseDrawing(drawing) {
		g[p] = &pkg{imports: map[string]bool{}}
		for _, m := range may {
			g[p].imports[strings.TrimSuffix(m, "/...")] = true
		}
	}
	report(t, checkStages(g))
	report(t, checkLayers(g))
}

// tree makes a graph: "from: imports | imports of tests".
func tree(lines ...string) graph {
	g := graph{}
	for _, l := range lines {
		name, rest, _ := strings.Cut(l, ":")
		code, tests, _ := strings.Cut(rest, "|")
		p := &pkg{map[string]bool{}, map[string]bool{}, map[string]int{"a.go": maxLines}}
		for _, i := range strings.Fields(code) {
			p.imports[i] = true
		}
		for _, i := range strings.Fields(tests) {
			p.testImports[i] = true
		}
		g[name] = p
	}
	return g
}

// TestRulesCatch holds each rule against a graph that breaks it, and one that
// does not.
func TestRulesCatch(t *testing.T) {
	t.Parallel()
	draw := func(g graph) []string {
		return checkDrawing(g, parseDrawing("agent: agent/... buffer\nbuffer:\nagent/poll:"))
	}
	linked := func(g graph) []string {
		by, err := g.linked("cmd/gridgate", func(imp string) ([]string, error) {
			switch imp {
			case "example.org/a":
				return []string{"example.org/b", "fmt"}, nil
			case "example.org/b":
				return []string{"testing"}, nil
			}
			return nil, nil
		})
		if err != nil {
			t.Error(err)
		}
		return checkLinked(by)
	}
	long := tree("agent:")
	long["agent"].lines["b.go"] = maxLines + 1
	tests := []struct {
		name  string
		check func(graph) []string
		g     graph
		want  string // "" for nothing
	}{
		{"drawn", draw, tree("agent: buffer agent/poll fmt example.org/x", "buffer:", "agent/poll:"), ""},
		{"undrawn package", draw, tree("agent/new:"), "agent/new is not drawn: add a line for it to drawing"},
		{"undrawn import", draw, tree("agent/poll: buffer", "buffer:"), "agent/poll imports buffer, which is not drawn"},

		{"stages apart", checkStages, tree("agent/poll: internal/meter", "drivers/modbus: drivers/line", "agent/uplink: agent/batch"), ""},
		{"a stage imports another", checkStages, tree("agent/poll: buffer"), "agent/poll imports buffer: stages never"},
		{"a stage imports another's child", checkStages, tree("buffer/state: drivers/line"), "buffer/state imports drivers/line: stages never"},
		{"a stage's test imports another", checkStages, tree("agent/poll:|agent/intake"), "agent/poll imports agent/intake: stages never"},
		{"the way back of an exception", checkStages, tree("agent/batch: agent/uplink"), "agent/batch imports agent/uplink: stages never"},
		{"a stage imports another's fake", checkStages, tree("agent/poll:|buffer/buffertest"), ""},

		{"down", checkLayers, tree("cmd/x: agent", "agent: configs", "configs: dlms", "dlms: dlms/obis internal/meter", "internal/meter: dlms/obis", "dlms/obis:"), ""},
		{"up", checkLayers, tree("dlms: drivers", "drivers:"), "dlms imports drivers, which points up"},
		{"up from a stage", checkLayers, tree("agent/poll: agent", "agent:"), "agent/poll imports agent, which points up"},
		{"up from internal", checkLayers, tree("internal/meter: dlms/axdr", "dlms/axdr:"), "internal/meter imports dlms/axdr, which points up"},
		{"up in a test", checkLayers, tree("configs:|agent", "agent:"), "configs imports agent, which points up"},
		{"nowhere", checkLayers, tree("pkg/util:"), "pkg/util is in no layer"},

		{"owner", checkOwners, tree("configs: go.yaml.in/yaml/v4", "buffer: go.etcd.io/bbolt/errors"), ""},
		{"not the owner", checkOwners, tree("agent: go.etcd.io/bbolt"), "agent imports go.etcd.io/bbolt, which is for buffer"},
		{"not the owner, in a test", checkOwners, tree("agent:|go.etcd.io/bbolt"), ""},
		{"no owner", checkOwners, tree("agent: example.org/x"), "agent imports example.org/x, which has no owner"},
		{"no owner, in a test", checkOwners, tree("agent:|example.org/x"), "agent imports example.org/x, which has no owner"},
		{"for tests only", checkOwners, tree("agent: github.com/google/go-cmp/cmp"), "which is for tests only"},
		{"for tests only, in a test", checkOwners, tree("agent:|github.com/google/go-cmp/cmp"), ""},
		{"for tests only, in a test package", checkOwners, tree("buffer/buffertest: pgregory.net/rapid"), ""},

		{"pure", bans, tree("dlms: fmt time", "drivers: net", "drivers/address: net/netip", "dlms/dlmstest: net", "dlms/axdr:|log/slog"), ""},
		{"not pure", bans, tree("dlms/axdr: log/slog"), "dlms/axdr imports log/slog: the client is a pure protocol"},
		{"below a ban", bans, tree("dlms: net/url"), "dlms imports net/url: the client"},

		{"firmware", checkFirmware, tree("cmd/gridgate: agent fmt", "agent: net", "cmd/gridfog: net/http"), ""},
		{"too much in the firmware", checkFirmware, tree("cmd/gridgate: agent", "agent: net/http"), "agent imports net/http, which has no place"},

		{"tests for tests", checkTestPackages, tree("a:|internal/linktest", "cmd/metersim: dlms/dlmstest", "x/xtest: internal/linktest", "internal/linktest:", "dlms/dlmstest:"), ""},
		{"tests in code", checkTestPackages, tree("agent: internal/linktest", "internal/linktest:"), "agent imports internal/linktest, which is for tests"},

		{"linked", linked, tree("cmd/gridgate: fmt agent", "agent: example.org/c"), ""},
		{"linked by us", linked, tree("cmd/gridgate: agent", "agent: testing"), "cmd/gridgate links testing, by way of cmd/gridgate > agent"},
		{"linked by others", linked, tree("cmd/gridgate: example.org/a"), "links testing, by way of cmd/gridgate > example.org/a > example.org/b"},
		{"a module", linked, tree("cmd/gridgate: github.com/mochi-mqtt/server/v2/listeners"), "links github.com/mochi-mqtt/server/v2/listeners"},
		{"a command", linked, tree("cmd/gridgate: cmd/gridfog", "cmd/gridfog:"), "links cmd/gridfog"},

		{"short", checkLength, tree("agent:"), ""},
		{"long", checkLength, long, "agent/b.go has 501 lines"},
	}
	for _, tt := range tests {
		wrong := tt.check(tt.g)
		switch {
		case tt.want == "" && len(wrong) > 0:
			t.Errorf("%s: %q, want nothing", tt.name, wrong)
		case tt.want != "" && (len(wrong) != 1 || !strings.Contains(wrong[0], tt.want)):
			t.Errorf("%s: %q, want one with %q", tt.name, wrong, tt.want)
		}
	}
}

func bans(g graph) []string { return checkForbidden(g, forbidden()) }

// What cannot be followed is an error, not a tree without leaves.
func TestLinkedFails(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	_, err := tree("cmd/gridgate: example.org/a").linked("cmd/gridgate", func(string) ([]string, error) { return nil, gone })
	if !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	e := elsewhere{cache: t.TempDir(), versions: map[string]string{"example.org/A": "v1.0.0"}}
	for imp, want := range map[string]string{"example.org/A/b": "example.org/!a@v1.0.0/b", "example.org/c": "of no module"} {
		if _, err := e.imports(imp); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", imp, err, want)
		}
	}
}

func TestGenerated(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]bool{
		"// Code generated by x. DO NOT EDIT.\npackage a\n":   true,
		"package a\n// Code generated by x. DO NOT EDIT.\n":   false,
		"// Code generated by x; edit as you like\npackage a": false,
	} {
		if got := generated([]byte(src)); got != want {
			t.Errorf("generated(%q) = %v", src, got)
		}
	}
}
