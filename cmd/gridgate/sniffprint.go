package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"gridgate/drivers/sniff"
	"gridgate/internal/cli"
)

// framePrinter prints frames, a line each: when, how long after the one before, who,
// what.
type framePrinter struct {
	out              *bufio.Writer
	json             *json.Encoder // nil: for people
	hex, color       bool
	last             time.Time
	printed, decoded int
}

// The colours of a terminal: ANSI, as all terminals have them.
const (
	plain   = "\x1b[0m"
	dim     = "\x1b[2m"
	red     = "\x1b[31m"
	green   = "\x1b[32m"
	cyan    = "\x1b[36m"
	magenta = "\x1b[35m"
)

func newFramePrinter(env cli.Env, f sniffFlags) *framePrinter {
	p := &framePrinter{out: bufio.NewWriter(env.Stdout), hex: f.hex}
	// https://no-color.org: set and not empty.
	p.color = isTerminal(env.Stdout) && env.Getenv("NO_COLOR") == "" && env.Getenv("TERM") != "dumb"
	if f.json {
		p.json = json.NewEncoder(p.out)
		p.json.SetEscapeHTML(false)
	}
	return p
}

// frameJSON is a frame for scripts.
type frameJSON struct {
	Time     string `json:"time,omitempty"`
	Talk     string `json:"connection,omitempty"`
	Protocol string `json:"protocol"`
	From     string `json:"from,omitempty"` // master or meter
	Text     string `json:"text"`
	Bad      bool   `json:"bad,omitempty"`
	Ciphered bool   `json:"ciphered,omitempty"`
	Octets   string `json:"octets,omitempty"`
}

func (p *framePrinter) print(talk string, f sniff.Frame) {
	p.printed++
	if f.Protocol != sniff.Unknown {
		p.decoded++
	}
	if p.json != nil {
		j := frameJSON{Talk: talk, Protocol: string(f.Protocol), Text: f.Text, Bad: f.Bad, Ciphered: f.Secret}
		j.From = [...]string{"", "master", "meter"}[f.From]
		if !f.At.IsZero() {
			j.Time = f.At.Format("2006-01-02T15:04:05.000000Z07:00")
		}
		if p.hex {
			j.Octets = hex.EncodeToString(f.Octets)
		}
		_ = p.json.Encode(j) // flush tells
		return
	}
	arrow, colour := "·", ""
	switch f.From {
	case sniff.FromMaster:
		arrow, colour = "→", cyan
	case sniff.FromMeter:
		arrow, colour = "←", green
	case sniff.AnyDirection:
	}
	switch {
	case f.Bad:
		colour = red
	case f.Secret:
		colour = magenta
	}
	p.paint(dim, p.when(f.At))
	if talk != "" {
		p.paint(dim, talk+" ")
	}
	p.paint(colour, fmt.Sprintf("%s %-10s %s", arrow, f.Protocol, f.Text))
	_, _ = p.out.WriteString("\n")
	if p.hex {
		for i := 0; i < len(f.Octets); i += 32 {
			p.paint(dim, fmt.Sprintf("%26s% X\n", "", f.Octets[i:min(len(f.Octets), i+32)]))
		}
	}
}

func (p *framePrinter) paint(colour, text string) {
	if p.color && colour != "" {
		text = colour + text + plain
	}
	_, _ = p.out.WriteString(text)
}

// when gives the time, and what passed since the frame before.
func (p *framePrinter) when(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	gap := ""
	if !p.last.IsZero() {
		if d := at.Sub(p.last); d > -time.Hour && d < 24*time.Hour {
			gap = fmt.Sprintf("+%.3f", d.Seconds())
		}
	}
	p.last = at
	return fmt.Sprintf("%s %10s ", at.Format("15:04:05.000"), strings.Replace(gap, "+-", "-", 1))
}

func (p *framePrinter) flush() error { return p.out.Flush() }
