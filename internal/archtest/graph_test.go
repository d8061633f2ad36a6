package archtest

import (
	"bufio"
	"bytes"
	"fmt"
	"go/build"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// module is the path of the project's module.
const module = "gridgate"

// pkg is one package of the project. Imports of the project's own packages are
// kept without the module's path.
type pkg struct {
	imports     map[string]bool // of its code
	testImports map[string]bool // of its tests, beyond those
	lines       map[string]int  // of the files that were written by hand, by name
}

// graph is the project: packages by their path below the module.
type graph map[string]*pkg

// edge is an import.
type edge struct{ from, to string }

// readGraph parses the imports of every package below root. It reads the tree
// itself and starts no go list, so that the test cache knows its inputs.
func readGraph(root string) (graph, error) {
	g := graph{}
	var walk func(dir string) error
	walk = func(dir string) error {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := e.Name()
			switch {
			case name[0] == '.' || name[0] == '_' || name == "testdata":
			case e.IsDir():
				if dir == "." && slices.Contains([]string{"bin", "dist", "demo-run"}, name) {
					continue
				}
				if err := walk(path.Join(dir, name)); err != nil {
					return err
				}
			case strings.HasSuffix(name, ".go"):
				if g[dir] == nil {
					g[dir] = &pkg{map[string]bool{}, map[string]bool{}, map[string]int{}}
				}
				if err := g[dir].read(filepath.Join(root, dir), name); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return g, walk(".")
}

func (p *pkg) read(dir, name string) error {
	src, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	imports, err := importsOf(name, src)
	if err != nil {
		return err
	}
	into := p.imports
	if strings.HasSuffix(name, "_test.go") {
		into = p.testImports
	}
	for _, i := range imports {
		into[strings.TrimPrefix(i, module+"/")] = true
	}
	if !generated(src) {
		p.lines[name] = bytes.Count(src, []byte("\n"))
	}
	return nil
}

func importsOf(name string, src []byte) ([]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var imports []string
	for _, s := range f.Imports {
		i, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			return nil, err
		}
		imports = append(imports, i)
	}
	return imports, nil
}

// generated looks for the marker that https://go.dev/s/generatedcode defines.
func generated(src []byte) bool {
	lines := bufio.NewScanner(bytes.NewReader(src))
	for lines.Scan() {
		l := lines.Text()
		if strings.HasPrefix(l, "// Code generated ") && strings.HasSuffix(l, " DO NOT EDIT.") {
			return true
		}
		if strings.HasPrefix(l, "package ") {
			return false
		}
	}
	return false
}

// paths gives the packages in order.
func (g graph) paths() []string { return slices.Sorted(maps.Keys(g)) }

// own says whether an import is of the project.
func (g graph) own(imp string) bool {
	_, ok := g[imp]
	return ok
}

// isStd says whether an import is of the standard library.
func isStd(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}

// below says whether p is root or under it.
func below(p, root string) bool { return p == root || strings.HasPrefix(p, root+"/") }

// isTestPackage says whether a package is there for tests: its name ends so.
func isTestPackage(p string) bool { return strings.HasSuffix(p, "test") }

// reachable gives the packages of the project that root is made of.
func (g graph) reachable(root string) map[string]bool {
	seen := map[string]bool{}
	var walk func(p string)
	walk = func(p string) {
		if seen[p] || g[p] == nil {
			return
		}
		seen[p] = true
		for i := range g[p].imports {
			walk(i)
		}
	}
	walk(root)
	return seen
}

// elsewhere finds the packages of modules from elsewhere in the module cache.
type elsewhere struct {
	cache    string
	versions map[string]string // by module
}

// readElsewhere reads what go.mod requires.
func readElsewhere(root string) (elsewhere, error) {
	e := elsewhere{cache: os.Getenv("GOMODCACHE"), versions: map[string]string{}}
	if e.cache == "" {
		e.cache = filepath.Join(filepath.SplitList(build.Default.GOPATH)[0], "pkg", "mod")
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return e, err
	}
	for line := range strings.Lines(string(mod)) {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(f) >= 2 && strings.Contains(f[0], ".") && strings.HasPrefix(f[1], "v") {
			e.versions[f[0]] = f[1]
		}
	}
	return e, nil
}

// moduleOf gives the module that has the package imp.
func moduleOf[V any](modules map[string]V, imp string) (string, bool) {
	for m := imp; m != "."; m = path.Dir(m) {
		if _, ok := modules[m]; ok {
			return m, true
		}
	}
	return "", false
}

// imports gives what the package imp imports when it is built for a gateway.
func (e elsewhere) imports(imp string) ([]string, error) {
	m, ok := moduleOf(e.versions, imp)
	if !ok {
		return nil, fmt.Errorf("%s is of no module in go.mod", imp)
	}
	dir := filepath.Join(e.cache, escapePath(m)+"@"+e.versions[m], strings.TrimPrefix(imp, m))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%w; run go mod download", err)
	}
	gateway := build.Default
	gateway.GOOS, gateway.GOARCH, gateway.CgoEnabled = "linux", "arm", false
	var all []string
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if match, err := gateway.MatchFile(dir, name); err != nil || !match {
			continue
		}
		src, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		imports, err := importsOf(name, src)
		if err != nil {
			return nil, err
		}
		all = append(all, imports...)
	}
	return all, nil
}

// escapePath writes a module's path as the module cache does: !x for X.
func escapePath(m string) string {
	var b strings.Builder
	for _, c := range m {
		if unicode.IsUpper(c) {
			b.WriteByte('!')
			c = unicode.ToLower(c)
		}
		b.WriteRune(c)
	}
	return b.String()
}

// linked gives everything that root is made of, with the standard library's
// packages that it imports itself, and for each by what it is imported. find
// gives the imports of a package from elsewhere.
func (g graph) linked(root string, find func(imp string) ([]string, error)) (map[string]string, error) {
	by := map[string]string{}
	var walk func(p, from string) error
	walk = func(p, from string) error {
		if _, seen := by[p]; seen {
			return nil
		}
		by[p] = from
		var imports []string
		switch {
		case g.own(p):
			imports = slices.Sorted(maps.Keys(g[p].imports))
		case !isStd(p):
			var err error
			if imports, err = find(p); err != nil {
				return err
			}
		}
		for _, i := range imports {
			if err := walk(i, p); err != nil {
				return err
			}
		}
		return nil
	}
	return by, walk(root, "")
}
