package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"gridgate/drivers/scan"
	"gridgate/internal/cli"
)

// progress shows how far a scan is: on a terminal by a bar that moves, else by a
// line for each thing that is tried.
type progress struct {
	out   io.Writer
	live  bool // out is a terminal
	since time.Time
	drawn time.Time
	doing string
}

const (
	barWidth = 24
	redraw   = 100 * time.Millisecond
	clearRow = "\r\x1b[K"
)

func newProgress(env cli.Env) *progress {
	return &progress{out: env.Stderr, live: isTerminal(env.Stderr), since: time.Now()}
}

// isTerminal says whether w is one: a device of characters, that is.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

// begin says what is going to be done, and how long that takes.
func (p *progress) begin(s *scan.Scan, where string) {
	fmt.Fprintf(p.out, "gridgate: scanning %s: %s, at most about %s; ctrl-C ends it and prints what was found\n",
		where, count(len(s.Steps()), "step"), short(s.Estimate()))
}

func (p *progress) tell(now scan.Progress) {
	if f := now.Found; f != nil {
		p.wipe()
		what := strings.TrimSpace(strings.Join([]string{f.Model, f.Serial, f.Says}, " "))
		fmt.Fprintf(p.out, "found: %s %s %s\n", f.Protocol, f.Address(), what)
	}
	begins := now.Doing != p.doing
	p.doing = now.Doing
	doing := now.Doing
	if now.Who != "" {
		doing = "who is " + now.Who + "?"
	}
	switch {
	case !p.live && begins:
		fmt.Fprintf(p.out, "%3d %%  %s\n", percent(now), now.Doing)
	case p.live && (begins || time.Since(p.drawn) >= redraw):
		p.drawn = time.Now()
		full := barWidth * percent(now) / 100
		fmt.Fprintf(p.out, "%s[%s%s] %3d %%  %s of ~%s  found %d  %s", clearRow, strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
			percent(now), short(time.Since(p.since)), short(now.Total), now.Count, doing)
	}
}

func percent(now scan.Progress) int {
	if now.Total <= 0 {
		return 0
	}
	return int(min(99, 100*now.Done/now.Total))
}

// end takes the bar away.
func (p *progress) end() {
	p.wipe()
	fmt.Fprintf(p.out, "gridgate: scan took %s\n", short(time.Since(p.since)))
}

func (p *progress) wipe() {
	if p.live {
		_, _ = io.WriteString(p.out, clearRow)
	}
}

// short gives a duration in whole seconds: 7m20s.
func short(d time.Duration) string { return d.Round(time.Second).String() }
