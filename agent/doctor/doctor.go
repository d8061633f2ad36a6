// Package doctor examines a gateway: whatever a technician on site would look at,
// each with a verdict and, where that is not ok, with what to do. It asks a running
// agent how it does, and looks itself at what an agent cannot see: ports and who
// else has them, the disk, certificates, files. Without an agent it looks at more
// itself.
package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"gridgate/agent/bundle"
	"gridgate/agent/status"
	"gridgate/configs"
	"gridgate/drivers/address"
	"gridgate/internal/secret"
)

// Level is a verdict.
type Level string

// The verdicts, from best to worst.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is what came of one check.
type Finding struct {
	Level Level  `json:"level"`
	Check string `json:"check"`        // what was looked at, a word
	Text  string `json:"text"`         // what was seen
	Do    string `json:"do,omitempty"` // what to do about it; never empty but for OK
}

// Options are what an examination works with.
type Options struct {
	Version    string
	ConfigPath string
	Socket     string // of the agent; empty is that of the configuration
	Getenv     func(string) string
	// Report is what the agent says, when it examines itself; nil: it is asked over
	// the socket, and lines and modem are looked at.
	Report *status.Report
	// Effective gives the configuration that an agent started with this file runs, and
	// its text.
	Effective func(path string) (*configs.Config, string, error)
	// Sources are where references to secrets lead on this gateway; may be nil.
	Sources func(*configs.Config) address.Sources
	// Secrets examines a store of secrets; may be nil.
	Secrets func(*configs.Config) []Finding
	// Root is where /proc and /sys are; empty but in tests.
	Root string
}

// Result is an examination at its end.
type Result struct {
	Findings []Finding
	Config   *configs.Config // nil when it cannot be read
	Text     string          // of Config
	Report   *status.Report  // nil when no agent runs
	Socket   string          // of the agent

	version string
	secrets []secret.Value
}

// Count says how many findings are of a level.
func (r *Result) Count(l Level) (n int) {
	for _, f := range r.Findings {
		if f.Level == l {
			n++
		}
	}
	return n
}

// Secrets gives the secrets that the configuration leads to, as far as they can be
// read: nothing that leaves the gateway may hold one.
func (r *Result) Secrets() []secret.Value { return r.secrets }

// Files gives what is known as files of a support bundle, with more.
func (r *Result) Files(more map[string]string) []bundle.File {
	var said strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintln(&said, f)
	}
	files := []bundle.File{
		{Name: "version.txt", Text: r.version + "\n"}, {Name: "doctor.txt", Text: said.String()}, bundle.Machine(), bundle.Kernel(),
	}
	if r.Config != nil { // one that is wrong may have secrets in it
		files = append(files, bundle.File{Name: "config.yaml", Text: r.Text})
	}
	if r.Report != nil {
		if b, err := json.Marshal(r.Report); err == nil {
			files = append(files, bundle.File{Name: "status.json", Text: string(b)})
		}
	}
	for name, text := range more {
		files = append(files, bundle.File{Name: name, Text: text})
	}
	return files
}

// String gives a finding in a line, and what to do in another.
func (f Finding) String() string {
	s := fmt.Sprintf("%-5s%-10s%s", f.Level, f.Check, strings.ReplaceAll(f.Text, "\n", "\n               "))
	if f.Do != "" {
		s += "\n               do: " + strings.ReplaceAll(f.Do, "\n", "\n                   ")
	}
	return s
}

// exam is an examination under way.
type exam struct {
	Options
	Result
	tell func(Finding)
	// partial says that Config is the file's alone: what was pushed cannot be read.
	partial bool
	noModem bool // its port is not to be had, which was said
}

// Run examines, and tells each finding as it comes.
func Run(ctx context.Context, o Options, tell func(Finding)) *Result {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	x := &exam{Options: o, tell: tell}
	x.version = o.Version
	x.Result.Report = o.Report
	checks := []func(context.Context){x.config, x.agent, x.ports, x.meters, x.clock, x.disk, x.buffer, x.modem, x.fog, x.certificates, x.keys, x.machine}
	for _, check := range checks {
		if ctx.Err() == nil {
			check(ctx)
		}
	}
	return &x.Result
}

func (x *exam) add(l Level, check, do, text string) {
	f := Finding{Level: l, Check: check, Text: text, Do: do}
	if l == OK {
		f.Do = ""
	} else if do == "" {
		f.Do = Remedy(text)
	}
	x.Findings = append(x.Findings, f)
	x.tell(f)
}

// config looks at the configuration file.
func (x *exam) config(context.Context) {
	const check = "config"
	cfg, text, err := x.Effective(x.ConfigPath)
	var problems configs.Problems
	switch {
	case errors.As(err, &problems):
		x.add(Fail, check, "correct the file where it says; gridgate check -config says whether all is right", problems.Error())
		return
	case errors.Is(err, fs.ErrPermission): // what was pushed is the agent's to read
		l, fileErr := configs.Read(x.ConfigPath)
		if fileErr == nil {
			cfg, fileErr = configs.Parse(x.ConfigPath, l.Data)
		}
		x.add(Fail, check, "", err.Error())
		if fileErr != nil {
			return
		}
		text, x.partial = string(l.Data), true
	case errors.Is(err, fs.ErrNotExist):
		x.add(Fail, check, "name the file with -config FILE, or write one: gridgate config reference shows every key", err.Error())
		return
	case err != nil:
		x.add(Fail, check, "", err.Error())
		return
	}
	x.Config, x.Text = cfg, text
	x.add(OK, check, "", fmt.Sprintf("%s: meters %d, lines %d, time zone %s", x.ConfigPath, len(cfg.Meters), len(cfg.Lines()), cfg.TimeZone))
	for _, a := range cfg.Advice() {
		x.add(Warn, check, "add servers to time.servers", a)
	}
	if info, err := os.Stat(x.ConfigPath); err == nil && info.Mode().Perm()&0o002 != 0 {
		x.add(Fail, check, "chmod o-w "+x.ConfigPath, x.ConfigPath+" may be changed by every user")
	}
	x.resolve()
}

// resolve notes the secrets that are to be read nowhere.
func (x *exam) resolve() {
	for _, s := range x.references() {
		if v, err := s.Resolve(x.sources()); err == nil {
			x.secrets = append(x.secrets, v)
		}
	}
	if b, err := os.ReadFile(x.Config.Uplink.Key); err == nil {
		x.secrets = append(x.secrets, secret.Of(b))
	}
}

// sources are where references to secrets lead.
func (x *exam) sources() address.Sources {
	if x.Sources != nil {
		return x.Sources(x.Config)
	}
	return address.Sources{Getenv: x.Getenv, ReadFile: os.ReadFile}
}

// references gives all secrets that the configuration names.
func (x *exam) references() (all []address.Secret) {
	for _, m := range x.Config.Meters {
		for _, s := range m.Address.Secrets() {
			all = append(all, s.Secret)
		}
	}
	return append(all, x.Config.Uplink.Password, x.Config.Modem.PIN)
}

// agent asks whether one runs, and how it does.
func (x *exam) agent(ctx context.Context) {
	const check = "agent"
	if x.Result.Report == nil {
		x.Result.Socket = x.Options.Socket
		if x.Result.Socket == "" && x.Config != nil {
			x.Result.Socket = x.Config.Control.Socket
		}
		if x.Result.Socket == "" {
			return // nobody knows where
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		r, err := status.Ask(ctx, x.Result.Socket)
		switch {
		case errors.Is(err, status.ErrNoAgent):
			x.add(Warn, check, "systemctl start gridgate, or gridgate run -config "+x.ConfigPath+"; until then nothing is read", "no agent runs: what follows is what can be seen without one")
			return
		case err != nil:
			x.add(Fail, check, "run gridgate doctor as root or as the agent's user; restart the agent if it does not answer", err.Error())
			return
		}
		x.Result.Report = &r
	}
	r := x.Result.Report
	x.add(OK, check, "", fmt.Sprintf("gridgate %s, pid %d, up %s, %s", r.Version, r.PID, time.Since(r.Started).Round(time.Second), r.Health.State))
	if x.Config != nil && r.Config.Hash != x.Config.Hash() && !x.partial && r.Orders.Trial == "" {
		x.add(Warn, check, "systemctl reload gridgate (kill -HUP), and look into its log if it refuses", "the agent runs another configuration than the file's: a change was not applied")
	}
	if r.Version != x.Version {
		x.add(Warn, check, "systemctl restart gridgate", fmt.Sprintf("the agent is version %s, this program %s", r.Version, x.Version))
	}
	for _, n := range r.Notes {
		x.add(Warn, check, "", n)
	}
	if r.Orders.Trial != "" {
		x.add(OK, check, "", "on trial: "+r.Orders.Trial)
	}
}
