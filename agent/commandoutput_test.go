package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/configs"
)

// relays are two outputs of a gateway.
type relays struct {
	t   *testing.T
	dir string
	cfg *configs.Config
}

func newRelays(t *testing.T) *relays {
	t.Helper()
	r := &relays{t: t, dir: t.TempDir()}
	r.cfg = &configs.Config{}
	for _, name := range []string{"boiler", "pump"} {
		path := filepath.Join(r.dir, name)
		if err := os.WriteFile(path, []byte("?"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.cfg.Outputs = append(r.cfg.Outputs, configs.Output{Name: "boiler", Path: path, On: "1", Rest: "0", Most: time.Hour})
	}
	r.cfg.Outputs[1].Name, r.cfg.Outputs[1].On, r.cfg.Outputs[1].Rest = "pump", "out", "in"
	return r
}

func (r *relays) is(name, want string) {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if got := strings.TrimSpace(string(b)); err != nil || got != want {
		r.t.Errorf("%s at %s: %q, %v; want %q", name, time.Now().Format(time.TimeOnly), got, err, want)
	}
}

func (r *relays) begin() (o *outputs, end func()) {
	r.t.Helper()
	o = newOutputs(r.dir, r.cfg, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.run(ctx) }()
	synctest.Wait()
	return o, func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
}

func TestOutputsLetGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRelays(t)
		o, end := r.begin()
		r.is("boiler", "0") // a start without an order lets go
		r.is("pump", "in")
		if err := o.set("boiler", time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if err := o.set("nothing", time.Now().Add(time.Minute)); err == nil {
			t.Error("an output that there is not was switched")
		}
		r.is("boiler", "1")
		time.Sleep(30 * time.Second)
		end() // a stop leaves it as it is
		r.is("boiler", "1")
		o, end = r.begin()
		r.is("boiler", "1")
		if l := o.list(); len(l) != 2 || !l[0].On || l[0].Until == nil || l[1].On {
			t.Errorf("%+v", l)
		}
		time.Sleep(29 * time.Second)
		r.is("boiler", "1")
		time.Sleep(2 * time.Second)
		r.is("boiler", "0")
		if err := o.set("pump", time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		r.is("pump", "out")
		if err := o.set("pump", time.Time{}); err != nil { // at once
			t.Fatal(err)
		}
		r.is("pump", "in")
		end()
	})
}

// TestOutputsThroughReboots: whatever the clock begins with, an output is not on
// for longer than it was ordered for, counted from then.
func TestOutputsThroughReboots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRelays(t)
		o, end := r.begin()
		if err := o.set("boiler", time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		end()
		long := time.Now().Add(30 * 365 * 24 * time.Hour) // the clock of the reboot is as far behind
		kept := `{"boiler":{"at":"` + long.Format(time.RFC3339) + `","until":"` + long.Add(time.Minute).Format(time.RFC3339) + `"}}`
		if err := os.WriteFile(o.file, []byte(kept), 0o600); err != nil {
			t.Fatal(err)
		}
		_, end = r.begin()
		r.is("boiler", "1")
		time.Sleep(61 * time.Second)
		r.is("boiler", "0")
		end()
		for _, damaged := range []string{"", "{", `{"boiler":7}`} {
			if err := os.WriteFile(o.file, []byte(damaged), 0o600); err != nil {
				t.Fatal(err)
			}
			_, end = r.begin()
			r.is("boiler", "0")
			end()
		}
	})
}

// TestOutputsThatCannotBeWritten are tried again, and told.
func TestOutputsThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRelays(t)
		o, end := r.begin()
		path := filepath.Join(r.dir, "boiler")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := o.set("boiler", time.Now().Add(time.Minute)); err == nil {
			t.Error("no error")
		}
		if l := o.list(); l[0].Error == "" || l[0].On {
			t.Errorf("%+v", l[0])
		}
		if err := os.WriteFile(path, []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		r.is("boiler", "0") // it was not switched on, so it is at rest
		if l := o.list(); l[0].Error != "" {
			t.Errorf("%+v", l[0])
		}
		end()
	})
}
