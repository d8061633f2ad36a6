package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"gridgate/configs"
	"gridgate/internal/meter"
)

// setupMost is how many wrong answers end the questions.
const setupMost = 5

// setup asks for what a configuration needs, makes the identity, and writes the
// configuration: whole, or not at all.
func (p *provision) setup(f *provisionFlags) error {
	if p.cfgErr != nil || p.cfg != nil {
		if p.cfgErr != nil {
			return fmt.Errorf("%s is there already, and is left as it is: %w", p.config, p.cfgErr)
		}
		_, err := p.ensureIdentity(p.cfg.Site, p.cfg.Gateway, false)
		return err
	}
	site, gateway := meter.ID("site-1"), meter.ID("gw-1")
	if host, err := os.Hostname(); err == nil {
		if id, err := meter.ParseID(strings.ToLower(host)); err == nil {
			gateway = id
		}
	}
	if id, err := p.identity(); err == nil {
		site, gateway = id.site, id.gateway
	}
	q := questions{in: bufio.NewReader(io.LimitReader(p.env.Stdin, 64<<10)), out: p.env.Stderr}
	isID := func(s string) error { _, err := meter.ParseID(s); return err }
	s, err1 := q.ask("site", f.site, string(site), isID)
	g, err2 := q.ask("gateway", f.gateway, string(gateway), isID)
	broker, err := q.ask("broker", f.broker, "ssl://fog:8883", func(b string) error {
		_, err := configs.Parse("answer", p.draft(s, g, b))
		return err
	})
	if err := errors.Join(err1, err2, err); err != nil {
		return err
	}
	if _, err := p.ensureIdentity(meter.ID(s), meter.ID(g), false); err != nil {
		return err
	}
	text := p.draft(s, g, broker)
	if _, err := configs.Parse(p.config, text); err != nil {
		return err
	}
	changed, err := p.put(p.config, text, 0o644)
	if changed {
		p.did("configuration written: %s", p.config)
	}
	p.at("configuration")
	return err
}

// draft is a configuration without meters.
func (p *provision) draft(site, gateway, broker string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nsite: %s\ngateway: %s\n", site, gateway)
	if p.buffer != agentState {
		fmt.Fprintf(&b, "buffer: {path: %q}\n", p.buffer)
	}
	fmt.Fprintf(&b, "trust: {file: %q}\nuplink:\n  broker: %q\n", p.trustFile(), broker)
	if strings.HasPrefix(broker, "ssl:") {
		fmt.Fprintf(&b, "  ca: %q\n  certificate: %q\n  key: secret:%s\n", p.caFile(), p.certificateFile(), clientKeyName)
	}
	b.WriteString("# groups and meters: gridgate scan LINE-URL -config-out FILE finds them\n")
	return []byte(b.String())
}

// questions are asked one after the other.
type questions struct {
	in  *bufio.Reader
	out io.Writer
}

// ask asks until the answer is right; given is one from the command line.
func (q *questions) ask(what, given, preset string, right func(string) error) (string, error) {
	if given != "" {
		if err := right(given); err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
		return given, nil
	}
	for range setupMost {
		fmt.Fprintf(q.out, "%s [%s]: ", what, preset)
		line, err := q.in.ReadString('\n')
		if err != nil && line == "" {
			fmt.Fprintln(q.out)
			return "", fmt.Errorf("%s: no answer, so nothing is written", what)
		}
		answer := cmp.Or(strings.TrimSpace(line), preset)
		if err := right(answer); err == nil {
			return answer, nil
		} else if _, err := fmt.Fprintf(q.out, "%v\n", err); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("%s: %d wrong answers, so nothing is written", what, setupMost)
}
