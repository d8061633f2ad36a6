package ppp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"gridgate/agent/modem"
)

// Limits of the dialler.
const (
	commandTime = 5 * time.Second
	pinTime     = 20 * time.Second
	// dialTime is how long a modem may take to connect: those that attach first take a
	// minute.
	dialTime   = 90 * time.Second
	guardTime  = 1100 * time.Millisecond // around +++ (V.250, S12)
	sayMost    = 4096                    // octets up to a result
	readyTries = 5
	readyEvery = 2 * time.Second
)

// stopError says that redialling would be of no use, or do harm.
type stopError struct{ error }

func (e stopError) Unwrap() error { return e.error }

// dialler speaks AT commands (V.250, TS 27.007) until the modem says CONNECT.
type dialler struct {
	port  modem.Port
	conf  Conf
	tried string // file of the PINs that were tried
	say   func(string)
}

func (d *dialler) dial(ctx context.Context) error {
	if _, err := d.command(ctx, "ATZ", commandTime); errors.Is(err, os.ErrDeadlineExceeded) {
		d.escape(ctx)
	}
	facts, err := modem.Look(ctx, d.port)
	if errors.Is(err, modem.ErrGarbled) { // what a connection left behind
		d.escape(ctx)
		facts, err = modem.Look(ctx, d.port)
	}
	if err != nil {
		return err
	}
	if facts.SIM == modem.SIMPIN {
		if facts, err = d.unlock(ctx, facts); err != nil {
			return err
		}
	}
	switch state, text := facts.Judge(); {
	case state == modem.NoSIM, state == modem.BadSIM, state == modem.WantsPIN, state == modem.WantsPUK,
		facts.Registration == modem.Searching, facts.Registration == modem.Denied, facts.Registration == modem.Limited:
		return errors.New(text)
	}
	if d.conf.APN != "" {
		if err := d.want(ctx, fmt.Sprintf(`AT+CGDCONT=1,"IP","%s"`, d.conf.APN), "OK", commandTime); err != nil {
			return err
		}
	}
	return d.want(ctx, "ATD"+d.conf.Number, "CONNECT", dialTime)
}

// escape brings a modem back that takes commands for data.
func (d *dialler) escape(ctx context.Context) {
	pause(ctx, guardTime)
	if _, err := io.WriteString(d.port, "+++"); err != nil {
		return
	}
	pause(ctx, guardTime)
	_, _ = d.command(ctx, "ATH", commandTime) // what follows finds out
}

// want is a command whose result has to begin with a word.
func (d *dialler) want(ctx context.Context, command, word string, limit time.Duration) error {
	result, err := d.command(ctx, command, limit)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s: no answer in %s", command, limit)
	case err != nil:
		return fmt.Errorf("%s: %w", command, err)
	case !strings.HasPrefix(result, word):
		return fmt.Errorf("%s: the modem says %s", command, result)
	}
	return nil
}

// command gives the final result of a command. It takes no octet after the line, since
// those after CONNECT are the peer's.
func (d *dialler) command(ctx context.Context, text string, limit time.Duration) (string, error) {
	if err := d.port.Discard(); err != nil {
		return "", err
	}
	if err := d.port.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = d.port.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(d.port, text+"\r"); err != nil {
		return "", err
	}
	var line []byte
	for range sayMost {
		var b [1]byte
		if _, err := io.ReadFull(d.port, b[:]); err != nil {
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			return "", err
		}
		if b[0] != '\n' && b[0] != '\r' {
			line = append(line, b[0])
			continue
		}
		if b[0] == '\r' && strings.HasPrefix(string(line), "CONNECT") {
			continue // its line feed is still to come
		}
		if result := printable(line); isResult(result) {
			return result, nil
		}
		line = line[:0]
	}
	return "", modem.ErrGarbled
}

func isResult(line string) bool {
	for _, r := range []string{"CONNECT", "NO CARRIER", "NO DIALTONE", "NO ANSWER", "+CME ERROR:", "+CMS ERROR:"} {
		if strings.HasPrefix(line, r) {
			return true
		}
	}
	return line == "OK" || line == "ERROR" || line == "BUSY"
}

// unlock enters the PIN, once, and never where it might be the last attempt. What was
// tried is kept over restarts: a wrong PIN must not block the SIM by and by.
func (d *dialler) unlock(ctx context.Context, f modem.Facts) (modem.Facts, error) {
	stop := func(format string, args ...any) (modem.Facts, error) {
		return f, stopError{fmt.Errorf("the SIM wants its PIN"+format, args...)}
	}
	const full = 3 // attempts of a SIM that took its PIN since (TS 102 221, 9.5.1)
	card := f.ICCID
	if card == "" {
		card = "in " + f.IMEI
	}
	tries, err := readTries(d.tried, card)
	switch {
	case d.conf.PIN == "":
		return stop(", and ppp.conf has none: add pin=, or take the PIN off the SIM in a phone")
	case f.Attempts == 0 || f.Attempts == 1:
		return stop(", and the last attempt is never used: enter the right PIN in a phone, and correct pin= in ppp.conf")
	case err != nil:
		return stop(", and what was tried is not known: %w", err)
	case f.Attempts < full && tries.has(d.conf.PIN):
		return stop(", and did not take this one before: correct pin= in ppp.conf")
	case f.Attempts < 0 && len(tries.pins) >= full-1:
		return stop(", did not take two before, and the modem does not tell how many attempts are left: one more might be the last")
	}
	if err := tries.add(d.conf.PIN); err != nil {
		return stop(", which is not tried while that cannot be written down: %w", err)
	}
	d.say("the PIN is entered")
	result, err := d.command(ctx, `AT+CPIN="`+d.conf.PIN+`"`, pinTime)
	if err != nil && ctx.Err() != nil {
		return f, err
	}
	if err != nil || result != "OK" {
		return stop(", and did not take it (%s%s)", result, errText(err))
	}
	for range readyTries { // a SIM is busy for a while then
		pause(ctx, readyEvery)
		if f, err = modem.Look(ctx, d.port); err != nil {
			return f, err
		}
		if f.SIM == modem.SIMReady {
			return f, tries.clear()
		}
	}
	return stop(", and after it was entered is not ready but: %s", f.SIM)
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
