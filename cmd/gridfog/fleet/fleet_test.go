package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gridgate/agent/batch"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

func stateTopic(gateway string) mqtt.Topic {
	return mqtt.Topic{Site: "north", Gateway: meter.ID(gateway), Kind: mqtt.State}
}

const online = `{"state":"online","version":"1.0","epoch":"00c0ffee00c0ffee","connected":"2026-01-01T07:00:00Z","at":"2026-01-01T08:00:00Z",` +
	`"started":"2025-12-24T10:11:12Z","config":"5f3c0a9be0d1c277","time_zone":"Europe/Berlin","meters":200,"clock":{"synchronised":true,"bound_ms":12},` +
	`"backlog":{"alarm":0,"billing":1,"interval":96,"instant":2048},"reading":"2026-01-01T07:59:30Z","withheld":["instant"],"news":[1]}`

// A gateway's life: since when it is what it is, as far as one can know.
func TestStates(t *testing.T) {
	t.Parallel()
	now := moment(t, "2026-01-02T00:00:00Z")
	f := New(time.UTC)
	take := func(payload string, retained bool) Gateway {
		t.Helper()
		if err := f.State(stateTopic("gw-1"), []byte(payload), retained, now); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
		return f.Gateways(now, true)[0]
	}
	text := func(at *time.Time) string {
		if at == nil {
			return "nil"
		}
		return at.UTC().Format(time.RFC3339)
	}
	for _, c := range []struct {
		what, payload       string
		retained            bool
		state, since, after string
	}{
		{"retained, of an old version", `{"state":"online","version":"0.9","epoch":"1"}`, true, "online", "nil", "nil"},
		{"the same again, live", `{"state":"online","version":"0.9","epoch":"1"}`, false, "online", "2026-01-02T00:01:00Z", "nil"},
		{"still", `{"state":"online","version":"0.9","epoch":"1"}`, false, "online", "2026-01-02T00:01:00Z", "nil"},
		{"it tells since when", online, true, "online", "2026-01-01T07:00:00Z", "nil"},
		{"stopped", `{"state":"offline","reason":"stopped","at":"2026-01-01T09:00:00Z"}`, true, "offline stopped", "2026-01-01T09:00:00Z", "nil"},
		{"lost while we look", `{"state":"offline","reason":"lost","at":"2026-01-01T09:30:00Z"}`, false, "offline lost", "2026-01-02T00:05:00Z", "nil"},
		{"and we come again", `{"state":"offline","reason":"lost","at":"2026-01-01T09:30:00Z"}`, true, "offline lost", "2026-01-02T00:05:00Z", "nil"},
		{"back", online, false, "online", "2026-01-01T07:00:00Z", "nil"},
		{"lost while we are away", `{"state":"offline","reason":"lost","at":"2026-01-01T07:00:00Z"}`, true, "offline lost", "nil", "2026-01-01T07:00:00Z"},
	} {
		g := take(c.payload, c.retained)
		if got := strings.TrimSpace(g.State + " " + g.Reason); got != c.state || text(g.Since) != c.since || text(g.After) != c.after {
			t.Errorf("%s: %s since %s after %s", c.what, got, text(g.Since), text(g.After))
		}
	}
	// The will is older than what was told last, and hides nothing of it.
	g := f.Gateways(now, true)[0]
	if g.Version != "1.0" || g.Config != "5f3c0a9be0d1c277" || *g.Meters != 200 || *g.Clock.Bound != 12 || g.Backlog.Total() != 2145 || text(g.Told) != "2026-01-01T08:00:00Z" {
		t.Errorf("%+v", g)
	}
	if err := f.State(stateTopic("gw-1"), nil, false, now); err != nil || len(f.Gateways(now, true)) != 0 {
		t.Errorf("taken back: %v", err)
	}
}

func TestJSONOfAGateway(t *testing.T) {
	t.Parallel()
	f := New(time.UTC)
	now := moment(t, "2026-01-01T09:00:00Z")
	if err := f.State(stateTopic("gw-1"), []byte(online), true, now); err != nil {
		t.Fatal(err)
	}
	f.SetShares("north", map[string][]Share{"gw-1": {{"2025-12-31", 8, 96, 95}}, "gw-2": {{"2025-12-31", 8, 4, 4}}})
	got, err := json.Marshal(f.Gateways(now, false))
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"site":"north","gateway":"gw-1","state":"online","since":"2026-01-01T07:00:00Z","started":"2025-12-24T10:11:12Z","told":"2026-01-01T08:00:00Z",` +
		`"version":"1.0","config":"5f3c0a9be0d1c277","epoch":"00c0ffee00c0ffee","time_zone":"Europe/Berlin","meters":200,"clock":{"synchronised":true,"bound_ms":12},` +
		`"backlog":{"alarm":0,"billing":1,"interval":96,"instant":2048},"withheld":["instant"],"reading":"2026-01-01T07:59:30Z","missing":0,` +
		`"shares":[{"day":"2025-12-31","hour":8,"expected":96,"complete":95}]},` +
		`{"site":"north","gateway":"gw-2","state":"unknown","missing":0,"shares":[{"day":"2025-12-31","hour":8,"expected":4,"complete":4}]}]`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Share{{"2025-12-31", 8, 100, 99}}, Total(f.Gateways(now, false))); d != "" {
		t.Error(d)
	}
}

func TestHostileStates(t *testing.T) {
	t.Parallel()
	f := New(time.UTC)
	for payload, want := range map[string]string{
		`null`:                                "neither online nor offline",
		`[]`:                                  "state:",
		`{"state":1}`:                         "state:",
		`{"state":"on"}`:                      `"on" is neither`,
		`{"state":"online"`:                   "state:",
		"\xff":                                "state:",
		`{"state":"online","at":"yesterday"}`: "state:",
		`{"state":"online","backlog":{"alarm":-1}}`:                          "state:",
		`{"state":"online","version":"` + strings.Repeat("x", 101) + `"}`:    "longer than 100",
		`{"state":"online","withheld":["` + strings.Repeat("x", 101) + `"]}`: "longer than 100",
		`{"state":"online","x":"` + strings.Repeat("x", maxState) + `"}`:     "longer than 16384",
		strings.Repeat("[", 10_000) + strings.Repeat("]", 100):               "state:",
	} {
		err := f.State(stateTopic("gw-1"), []byte(payload), false, time.Now())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v", payload, err)
		}
	}
	if len(f.Gateways(time.Now(), true)) != 0 {
		t.Error("a gateway is known by what was refused")
	}
	// A zone that nobody knows is the common one, and what looks like a file is none.
	for _, name := range []string{"Mars/Olympus", "../../../etc/passwd", "/etc/localtime"} {
		if got := f.ZoneOf(&Gateway{TimeZone: name}); got != time.UTC {
			t.Errorf("%s is %v", name, got)
		}
	}
	if got := f.ZoneOf(&Gateway{TimeZone: "Asia/Tokyo"}); got.String() != "Asia/Tokyo" {
		t.Errorf("Tokyo is %v", got)
	}
}

// FuzzState holds that nothing that is sent does more than being refused, and
// that what was taken can be shown.
func FuzzState(f *testing.F) {
	f.Add([]byte(online), true)
	f.Add([]byte(`{"state":"offline","reason":"lost","at":"2026-01-01T09:30:00Z"}`), false)
	f.Fuzz(func(t *testing.T, b []byte, retained bool) {
		fleet := New(time.UTC)
		now := time.UnixMilli(1_800_000_000_000)
		if fleet.State(stateTopic("a"), b, retained, now) != nil {
			return
		}
		all := fleet.Gateways(now, true)
		if len(b) > 0 && len(all) != 1 {
			t.Fatalf("%q gives %+v", b, all)
		}
		if _, err := json.Marshal(all); err != nil {
			t.Error(err)
		}
		var out strings.Builder
		if err := WriteMetrics(&out, all, Tool{}); err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(out.String()) {
			if name, _, _ := strings.Cut(line, "{"); !strings.HasPrefix(line, "#") && !strings.HasPrefix(name, "grid") {
				t.Errorf("a line of metrics is %q", line)
			}
		}
	})
}

func TestRowsMakeAGatewayKnown(t *testing.T) {
	t.Parallel()
	f := New(time.UTC)
	now := moment(t, "2026-01-01T09:00:00Z")
	row := func(at string) batch.Row {
		return batch.Row{Lane: batch.Instant, Stamp: batch.Stamp{Time: moment(t, at).UnixMilli()}}
	}
	if err := f.Rows("north", "gw-1", []batch.Row{row("2026-01-01T08:00:00Z"), row("2026-01-01T08:59:00Z"), row("2031-01-01T00:00:00Z")}, now); err != nil {
		t.Fatal(err)
	}
	f.SetMissing(map[[2]string]uint64{{"north", "gw-1"}: 3, {"north", "gw-9"}: 4})
	g := f.Gateways(now, true)
	if len(g) != 1 || g[0].State != "unknown" || !g[0].Reading.Equal(moment(t, "2026-01-01T08:59:00Z")) || !g[0].Arrived.Equal(now) || g[0].Missing != 3 {
		t.Errorf("%+v", g)
	}
	for i := range maxGateways {
		f.gateways[place{"s", fmt.Sprint(i)}] = &Gateway{}
	}
	if err := f.Rows("north", "gw-new", nil, now); !errors.Is(err, ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
}
