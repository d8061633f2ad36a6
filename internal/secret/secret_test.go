package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"text/template"

	"gridgate/internal/secret"
)

const planted = "Hunter2-planted"

type exported struct{ A secret.Value }

type holder struct {
	Exported secret.Value
	hidden   secret.Value
	nested   struct{ deep []secret.Value }
	mapped   map[string]secret.Value
	pointer  *secret.Value
}

func holding(v secret.Value) holder {
	h := holder{Exported: v, hidden: v, mapped: map[string]secret.Value{"k": v}, pointer: &v}
	h.nested.deep = []secret.Value{v}
	return h
}

// TestNothingShowsIt: every way of printing that there is, of the value itself and
// of what has it within, in fields that are not exported too.
func TestNothingShowsIt(t *testing.T) {
	t.Parallel()
	v := secret.Of(planted)
	h := holding(v)
	var all []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%b", "%c", "%U", "%t", "%p", "%T", "%8.3s", "%!"} {
		for _, what := range []any{v, &v, h, &h, []any{v, h}, map[string]any{"a": v}, [1]secret.Value{v}, errors.Join(fmt.Errorf("x: %v", v))} {
			all = append(all, fmt.Sprintf(verb, what))
		}
	}
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, xml.Marshal} {
		for _, what := range []any{v, &v, exported{v}} {
			b, err := marshal(what)
			if err != nil {
				t.Error(err)
			}
			all = append(all, string(b))
		}
	}
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("x", "a", v, "b", &v, "c", h, "d", []secret.Value{v}, slog.Any("e", map[string]any{"f": v}))
	}
	if err := template.Must(template.New("").Parse("{{.}} {{.Exported}} {{printf \"%s %x\" .Exported .Exported}}")).Execute(&log, h); err != nil {
		t.Error(err)
	}
	all = append(all, log.String(), fmt.Sprint(v, h), fmt.Sprintln(&h), v.String(), v.GoString())
	for _, text := range all {
		for _, form := range forms(planted) {
			if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
				t.Errorf("shown: %s", text)
			}
		}
	}
	if got := string(v.Reveal()); got != planted || v.Len() != len(planted) {
		t.Errorf("revealed %q", got)
	}
}

// forms are how a formatter might show a text.
func forms(s string) []string {
	spaced := strings.TrimSpace(strings.ReplaceAll(fmt.Sprintf("% x", s), " ", ", 0x"))
	return []string{
		s, hex.EncodeToString([]byte(s)), fmt.Sprintf("% x", s), spaced, base64.StdEncoding.EncodeToString([]byte(s)),
		strings.Trim(fmt.Sprintf("%d", []byte(s)), "[]"),
	}
}

// TestTheFormsAreFound: the test above sees a text that is shown.
func TestTheFormsAreFound(t *testing.T) {
	t.Parallel()
	plain := struct{ a []byte }{[]byte(planted)}
	for verb, form := range map[string]int{"%v": 5, "%s": 0, "%x": 1, "%#v": 3} {
		if text := fmt.Sprintf(verb, plain); !strings.Contains(text, forms(planted)[form]) {
			t.Errorf("%s: %q is not found in %s", verb, forms(planted)[form], text)
		}
	}
}

func TestNone(t *testing.T) {
	t.Parallel()
	for _, v := range []secret.Value{{}, secret.Of(""), secret.Of([]byte(nil))} {
		if !v.IsZero() || v.Reveal() != nil || v.Len() != 0 || fmt.Sprint(v) != "" {
			t.Errorf("%#v is one", v)
		}
	}
	if secret.Of("x").IsZero() {
		t.Error("one is none")
	}
}

// TestItIsACopy: neither who made it nor who has it can change it.
func TestItIsACopy(t *testing.T) {
	t.Parallel()
	b := []byte("abc")
	v := secret.Of(b)
	b[0] = 'x'
	v.Reveal()[1] = 'x'
	if got := string(v.Reveal()); got != "abc" {
		t.Errorf("%q", got)
	}
}
