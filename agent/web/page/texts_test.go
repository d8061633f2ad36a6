package page

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTexts compares the languages: the same keys, the same places for what is put
// in, in Arabic some Arabic; and what the scripts use, no more and no less.
func TestTexts(t *testing.T) {
	t.Parallel()
	en, ar := table(t, "src/texts.en.js"), table(t, "src/texts.ar.js")
	if len(en) < 100 {
		t.Fatalf("only %d texts were found", len(en))
	}
	arabic, place := regexp.MustCompile(`\p{Arabic}`), regexp.MustCompile(`\{\w+\}`)
	for key, text := range en {
		other, ok := ar[key]
		if !ok {
			t.Errorf("%s is not in Arabic", key)
			continue
		}
		if a, b := place.FindAllString(text, -1), place.FindAllString(other, -1); !same(a, b) {
			t.Errorf("%s: %v is put in, in Arabic %v", key, a, b)
		}
		if !arabic.MatchString(other) && key != "lang.other" {
			t.Errorf("%s: %q is not Arabic", key, other)
		}
	}
	for key := range ar {
		if _, ok := en[key]; !ok {
			t.Errorf("%s is in Arabic only", key)
		}
	}
	code := scripts(t)
	for _, m := range regexp.MustCompile(`\bt\('([^']+)'[,)]`).FindAllStringSubmatch(code, -1) {
		if _, ok := en[m[1]]; !ok {
			t.Errorf("the scripts use %s, which there is not", m[1])
		}
	}
	for key := range en {
		start, _, _ := strings.Cut(key, ".")
		if !strings.Contains(code, "'"+key+"'") && !strings.Contains(code, "'"+start+".' + ") {
			t.Errorf("nothing uses %s", key)
		}
	}
}

func same(a, b []string) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// table gives the texts of a file, of the table that comes first in it.
func table(t *testing.T, name string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(b), "\n};")
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`'([a-z0-9.-]+)': '([^'\n]*)'`).FindAllStringSubmatch(text, -1) {
		if _, twice := out[m[1]]; twice {
			t.Errorf("%s: %s is there twice", name, m[1])
		}
		out[m[1]] = m[2]
	}
	return out
}

func scripts(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob("src/*.js")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, name := range names {
		if strings.HasPrefix(filepath.Base(name), "texts.") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(b)
	}
	return code.String()
}
