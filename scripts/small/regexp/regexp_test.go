package regexp

import (
	"math/rand/v2"
	std "regexp"
	"slices"
	"strings"
	"testing"
)

// patterns are those of the modules, and some that say more.
func patterns() []string {
	return []string{
		`^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$`,
		`^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$`,
		`^[A-Za-z0-9_+\-]+$`, `^[A-Za-z0-9_-]+$`, `^[0-9]+$`, `^'[0-9]+'$`, `^[1-9][0-9]*$`,
		`^v?([0-9]+\.[0-9]+\.[0-9]+)$`,
		`(ttyS|ttyHS|ttyUSB|ttyACM|ttyAMA|rfcomm|ttyO|ttymxc)[0-9]{1,3}`,
		`^a.*b$`, "^" + strings.ReplaceAll(QuoteMeta("é.*x"), `\*`, ".*") + "$",
		`(a|ab)(c|bcd)(d*)`, `(a+)(b?)a`, `(a*)*`, `(a|b)*c|^$`, `^*a`, `[^a-c]+(b)?$`, `[]a]b`, `a{2}b{0,2}`, `x(|y)z`, ``,
	}
}

const alphabet = "aabbcdxyz0019.+-_:eEv'tyS]\n\\é"

func TestAsTheStandardLibrary(t *testing.T) {
	t.Parallel()
	for _, pattern := range patterns() {
		ours, theirs := MustCompile(pattern), std.MustCompile(pattern)
		rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test's
		texts := []string{"", "1.5e-3", "-0.5", "1:30:59.5", "v4.0.0", "ttyUSB12", "/dev/ttymxc1234", "'17'", "é, x", "aaa", "abcd"}
		matched := 0
		for range 5000 {
			var text []rune
			for range rng.IntN(9) {
				set := []rune(alphabet + pattern)
				text = append(text, set[rng.IntN(len(set))])
			}
			texts = append(texts, string(text))
		}
		for _, text := range texts {
			got, want := ours.FindStringSubmatch(text), theirs.FindStringSubmatch(text)
			if !slices.Equal(got, want) || ours.MatchString(text) != (want != nil) {
				t.Fatalf("%q in %q: %q, want %q", pattern, text, got, want)
			}
			if want != nil {
				matched++
			}
		}
		if matched == 0 {
			t.Errorf("%q: no text matched", pattern)
		}
	}
}

func TestLong(t *testing.T) {
	t.Parallel()
	digits := strings.Repeat("7", 1<<20)
	if r := MustCompile(patterns()[0]); !r.MatchString(digits) || r.MatchString(digits+"x") {
		t.Error("a number of a million digits is not found, or what is none is")
	}
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{`\d`, `[\w]`, `a{10}`, `a{2,`, `a{2,1}`, `(a`, `a)`, `[a`, `(?i)a`, `*`, `é+`, `[é]`, `a\`} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was compiled", pattern)
				}
			}()
			MustCompile(pattern)
		}()
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("12:30.5")
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "") // ours goes by octets
		for _, pattern := range patterns() {
			got, want := MustCompile(pattern).FindStringSubmatch(text), std.MustCompile(pattern).FindStringSubmatch(text)
			if !slices.Equal(got, want) {
				t.Fatalf("%q in %q: %q, want %q", pattern, text, got, want)
			}
		}
	})
}
