package archtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ban keeps packages of the standard library out of a part of the tree.
type ban struct {
	where string
	what  []string
	why   string
}

// parseDrawing reads a drawing: the packages that each package may import.
func parseDrawing(text string) map[string][]string {
	drawn := map[string][]string{}
	for line := range strings.Lines(text) {
		if name, imports, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			drawn[name] = strings.Fields(imports)
		}
	}
	return drawn
}

// checkDrawing finds packages and imports that are not drawn.
func checkDrawing(g graph, drawn map[string][]string) (wrong []string) {
	for _, p := range g.paths() {
		may, ok := drawn[p]
		if !ok {
			wrong = append(wrong, p+" is not drawn: add a line for it to drawing in internal/archtest/rules_test.go")
			continue
		}
		for _, i := range slices.Sorted(maps.Keys(g[p].imports)) {
			if g.own(i) && !allowed(may, i) {
				wrong = append(wrong, fmt.Sprintf("%s imports %s, which is not drawn: go through its caller, or draw it in internal/archtest/rules_test.go", p, i))
			}
		}
	}
	return wrong
}

func allowed(may []string, imp string) bool {
	return slices.ContainsFunc(may, func(m string) bool {
		if root, ok := strings.CutSuffix(m, "/..."); ok {
			return below(imp, root)
		}
		return m == imp
	})
}

// stageOf gives the stage that p belongs to.
func stageOf(p string) string {
	for _, s := range stages() {
		if below(p, s) {
			return s
		}
	}
	return ""
}

// checkStages finds stages that import one another, in code and in tests.
func checkStages(g graph) (wrong []string) {
	for _, p := range g.paths() {
		for _, i := range g[p].all() {
			from, to := stageOf(p), stageOf(i)
			if from == "" || to == "" || from == to || isTestPackage(p) || isTestPackage(i) {
				continue
			}
			if _, ok := betweenStages()[edge{p, i}]; !ok {
				wrong = append(wrong, fmt.Sprintf("%s imports %s: stages never import one another; they meet in internal/meter", p, i))
			}
		}
	}
	return wrong
}

// all gives the imports of code and tests.
func (p *pkg) all() []string {
	both := maps.Clone(p.imports)
	maps.Copy(both, p.testImports)
	return slices.Sorted(maps.Keys(both))
}

// layerOf gives the height of p: 0 is the highest.
func layerOf(p string) int {
	best, at := "", -1
	for i, names := range layers() {
		for _, n := range names {
			if below(p, n) && len(n) > len(best) {
				best, at = n, i
			}
		}
	}
	return at
}

// checkLayers finds imports that point up, in code and in tests.
func checkLayers(g graph) (wrong []string) {
	for _, p := range g.paths() {
		if layerOf(p) < 0 {
			wrong = append(wrong, p+" is in no layer: see layers in internal/archtest/rules_test.go")
			continue
		}
		for _, i := range g[p].all() {
			if g.own(i) && !isTestPackage(i) && layerOf(i) < layerOf(p) {
				wrong = append(wrong, fmt.Sprintf("%s imports %s, which points up", p, i))
			}
		}
	}
	return wrong
}

// checkOwners finds modules from elsewhere that are imported by others than
// their owners.
func checkOwners(g graph) (wrong []string) {
	for _, p := range g.paths() {
		for _, i := range g[p].all() {
			if isStd(i) || g.own(i) {
				continue
			}
			m, ok := moduleOf(owners(), i)
			switch {
			case !ok:
				wrong = append(wrong, fmt.Sprintf("%s imports %s, which has no owner: name one in internal/archtest/rules_test.go and write down why in docs/decisions", p, i))
			case g[p].imports[i] && len(owners()[m]) == 0 && !isTestPackage(p):
				wrong = append(wrong, fmt.Sprintf("%s imports %s, which is for tests only", p, i))
			case g[p].imports[i] && len(owners()[m]) > 0 && !slices.Contains(owners()[m], p):
				wrong = append(wrong, fmt.Sprintf("%s imports %s, which is for %s only", p, i, strings.Join(owners()[m], ", ")))
			}
		}
	}
	return wrong
}

// checkForbidden finds packages of the standard library where they are banned.
func checkForbidden(g graph, bans []ban) (wrong []string) {
	for _, p := range g.paths() {
		for _, b := range bans {
			if !below(p, b.where) || isTestPackage(p) {
				continue
			}
			for _, i := range slices.Sorted(maps.Keys(g[p].imports)) {
				// net/netip is values only, and no part of net here.
				if isStd(i) && i != "net/netip" && slices.ContainsFunc(b.what, func(w string) bool { return below(i, w) }) {
					wrong = append(wrong, fmt.Sprintf("%s imports %s: %s", p, i, b.why))
				}
			}
		}
	}
	return wrong
}

// checkFirmware finds what our own packages in the firmware do without.
func checkFirmware(g graph) (wrong []string) {
	for _, p := range slices.Sorted(maps.Keys(g.reachable("cmd/gridgate"))) {
		for _, i := range notInFirmware() {
			if _, ok := inFirmwareAllTheSame()[edge{p, i}]; g[p].imports[i] && !ok {
				wrong = append(wrong, fmt.Sprintf("%s imports %s, which has no place in the firmware; see notInFirmware in internal/archtest/rules_test.go", p, i))
			}
		}
	}
	return wrong
}

// checkTestPackages finds code that leans on packages made for tests.
func checkTestPackages(g graph) (wrong []string) {
	for _, p := range g.paths() {
		if isTestPackage(p) || slices.Contains(mayUseTestPackages(), p) {
			continue
		}
		for _, i := range slices.Sorted(maps.Keys(g[p].imports)) {
			if g.own(i) && isTestPackage(i) {
				wrong = append(wrong, fmt.Sprintf("%s imports %s, which is for tests", p, i))
			}
		}
	}
	return wrong
}

// checkLinked finds what must not get into the firmware by any way.
func checkLinked(by map[string]string) (wrong []string) {
	for _, p := range slices.Sorted(maps.Keys(by)) {
		full := p
		if !isStd(p) || below(p, "cmd") {
			full = strings.TrimPrefix(p, module+"/")
		}
		for _, n := range notLinked() {
			if below(full, strings.TrimPrefix(n, module+"/")) {
				wrong = append(wrong, fmt.Sprintf("cmd/gridgate links %s, by way of %s", p, way(by, p)))
			}
		}
	}
	return wrong
}

// way tells how p came in.
func way(by map[string]string, p string) string {
	var steps []string
	for at := by[p]; at != ""; at = by[at] {
		steps = append(steps, at)
	}
	slices.Reverse(steps)
	return strings.Join(steps, " > ")
}

// checkLength finds files that are two things.
func checkLength(g graph) (wrong []string) {
	for _, p := range g.paths() {
		for _, name := range slices.Sorted(maps.Keys(g[p].lines)) {
			if n := g[p].lines[name]; n > maxLines {
				wrong = append(wrong, fmt.Sprintf("%s/%s has %d lines, more than %d: it is two things", p, name, n, maxLines))
			}
		}
	}
	return wrong
}
