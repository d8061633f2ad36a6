package iec21

import (
	"context"
	"errors"
	"fmt"

	"gridgate/internal/meter"
)

// refusalError is the meter's word that it does not serve a request.
type refusalError struct{ text string }

func (e *refusalError) Error() string { return fmt.Sprintf("the meter refuses: %s", e.text) }

func isRefused(err error) bool {
	var no *refusalError
	return errors.As(err, &no)
}

// What ends a programming session.
var (
	errBreak  = errors.New("the meter broke off the session (B0)")
	errNoMode = errors.New("the meter sends its readout: it has no programming mode at this port")
)

const (
	repeats   = 2   // of a damaged message
	maxBlocks = 256 // partial blocks of an answer
)

// program has a session in the programming mode. The meter is told its end
// also where something went wrong, as long as it may listen.
func (v *visit) program(ctx context.Context, s *session) error {
	challenge, err := s.opened(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if ctx.Err() == nil && pause(ctx, s.pause) == nil {
			_ = s.write(ctx, appendCommand(nil, "B0", ""))
			_ = s.change(v.settings(v.cfg.SignOn)) // when it is out
		}
	}()
	if err := v.password(ctx, s, challenge); err != nil {
		return err
	}
	s.command = v.command
	if err := v.prove(ctx, s); err != nil {
		return err
	}
	// What is done is taken off, for a session that has to begin anew.
	for ; len(v.rest) > 0; v.rest = v.rest[1:] {
		if err := v.ask(ctx, s, v.rest[0]); err != nil {
			return err
		}
	}
	if v.clock {
		if err := v.askClock(ctx, s); err != nil {
			return err
		}
		v.clock = false
	}
	for ; len(v.profiles) > 0; v.profiles = v.profiles[1:] {
		if err := v.profile(ctx, s, &v.profiles[0]); err != nil {
			return err
		}
	}
	if v.setting != nil {
		return v.setClock(ctx, s)
	}
	return nil
}

// opened waits for the meter's P0 and gives what it challenges with.
func (s *session) opened(ctx context.Context) (challenge string, err error) {
	for range maxNoise {
		f, err := s.frame(ctx, false)
		switch {
		case err != nil:
			return "", silenceAs(err, errSilent)
		case f.kind == soh && f.command == "P0":
			if sets, err := parseLine(f.body); err == nil {
				challenge = sets[0].values[0]
			}
			return challenge, nil
		case f.kind == soh:
			return "", errBreak
		case f.kind == stx:
			return "", errNoMode
		case f.kind == nak:
			return "", &refusalError{"programming mode (NAK)"}
		}
	}
	return "", fmt.Errorf("%w: noise", errGarbled)
}

// password proves who we are. It is sent once a session: what is repeated to a
// meter that refuses it brings a lock-out nearer.
func (v *visit) password(ctx context.Context, s *session, challenge string) error {
	if len(v.cfg.Password) == 0 {
		return nil
	}
	refused := func(how string) error {
		advice := "wrong password?"
		if challenge != "" {
			advice = "wrong password, or does it want it enciphered (P2), which is not in this version?"
		}
		return fmt.Errorf("the meter refused the password (%s): %w (%s)", how, meter.ErrAuthentication, advice)
	}
	if err := pause(ctx, s.pause); err != nil {
		return err
	}
	if err := s.write(ctx, appendCommand(nil, "P1", "("+string(v.cfg.Password)+")")); err != nil {
		return err
	}
	for range maxNoise {
		f, err := s.frame(ctx, false)
		switch {
		case err != nil && !isTimeout(err) && errors.Is(err, errGarbled):
			// Not errGarbled: a new sign-on would send it a second time.
			return fmt.Errorf("the answer to the password is damaged: %v", err) //nolint:errorlint // see above
		case err != nil:
			return silenceAs(err, errSilent)
		case f.kind == ack:
			return nil
		case f.kind == nak:
			return refused("NAK")
		case f.kind == soh && f.command == "P0":
			continue // a late repetition
		case f.kind == soh:
			return refused("B0")
		default:
			return refused(fmt.Sprintf("%q", f.body[:min(len(f.body), maxAddress)]))
		}
	}
	return fmt.Errorf("%w: noise", errGarbled)
}

// request asks and takes the answer's data, its partial blocks joined. A
// refusal is a *refusalError; silence ends the session, since an answer that
// comes late would be taken for the next one's.
func (s *session) request(ctx context.Context, command, data string) (frame, error) {
	var all frame
	message := appendCommand(nil, command, data)
	damaged := 0
	for blocks := 0; blocks < maxBlocks; {
		if err := pause(ctx, s.pause); err != nil {
			return all, err
		}
		if err := s.write(ctx, message); err != nil {
			return all, err
		}
		f, err := s.answer(ctx)
		switch {
		case errors.Is(err, errGarbled) && damaged < repeats:
			damaged++
			if err := s.hush(ctx, s.pause); err != nil {
				return all, err
			}
			message = []byte{nak}
			continue
		case err != nil:
			return all, silenceAs(err, errSilent)
		case f.kind == nak:
			return all, &refusalError{"NAK"}
		case f.kind == soh:
			return all, errBreak
		}
		if len(all.body)+len(f.body) > maxBlock {
			return all, fmt.Errorf("%w: more than %d octets", errGarbled, maxBlock)
		}
		for _, a := range f.arrived {
			all.arrived = append(all.arrived, arrival{a.end + len(all.body), a.stamp})
		}
		all.body = append(all.body, f.body...)
		if !f.partial {
			return all, nil
		}
		blocks++
		message = []byte{ack}
	}
	return all, fmt.Errorf("%w: more than %d blocks", errGarbled, maxBlocks)
}

// answer takes the next message that is an answer. A lone ACK is an echo.
func (s *session) answer(ctx context.Context) (frame, error) {
	for range maxNoise {
		f, err := s.frame(ctx, false)
		if err != nil || f.kind != ack {
			return f, err
		}
	}
	return frame{}, fmt.Errorf("%w: noise", errGarbled)
}

// readCommands are those that meters take for registers.
func readCommands() []byte { return []byte{'5', '1', '2'} }

// register reads an address. The first read of a meter finds out the command.
func (v *visit) register(ctx context.Context, s *session, address string) (entry, error) {
	commands := readCommands()
	if s.command != 0 {
		commands = []byte{s.command}
	}
	var first error
	for _, c := range commands {
		f, err := s.request(ctx, "R"+string(rune(c)), address+"()")
		if err == nil {
			var e entry
			if e, err = answered(&f, address); err == nil {
				s.command, v.command = c, c
				return e, nil
			}
		}
		if first == nil {
			first = err
		}
		if !isRefused(err) {
			return entry{}, err
		}
	}
	return entry{}, first
}

// answered finds in an answer what was asked for. An answer may leave out the
// address, but it may not have another one.
func answered(f *frame, address string) (entry, error) {
	want, err := parseAddress(address)
	if err != nil {
		return entry{}, err
	}
	all, _ := lines(f.body)
	if len(all) == 0 {
		return entry{}, fmt.Errorf("%w: an empty answer", errGarbled)
	}
	sets, err := parseLine(all[0].text)
	if err != nil {
		return entry{}, fmt.Errorf("%w: %w", errGarbled, err)
	}
	first := sets[0]
	if isRefusal(first.values[0]) {
		return entry{}, &refusalError{first.values[0]}
	}
	if got, err := parseAddress(first.address); first.address != "" && (err != nil || got != want) {
		return entry{}, fmt.Errorf("%w: asked for %s, the answer is of %s", errGarbled, address, first.address)
	}
	return entry{code: want, address: address, values: first.values, stamp: f.at(0)}, nil
}

// prove reads the serial number and compares it, also with the one of the
// readout before.
func (v *visit) prove(ctx context.Context, s *session) error {
	addresses := []string{"C.1.0", "0.0.0"}
	if v.serialAt != "" {
		addresses = []string{v.serialAt}
	}
	var shown []string
	for _, a := range addresses {
		e, err := v.register(ctx, s, a)
		if isRefused(err) || errors.Is(err, errNoValue) {
			continue
		}
		if err != nil {
			return fmt.Errorf("serial number: %w", err)
		}
		if text, _ := cutUnit(e.values[0]); text != "" {
			shown = append(shown, text)
			if v.serialAt == "" {
				v.serialAt = a
			}
			if v.cfg.Serial == "" || sameSerial(text, v.cfg.Serial) {
				break
			}
		}
	}
	before := v.got.Identity
	if v.unproven = len(shown) == 0; v.unproven && v.known {
		return nil // it shows none here
	}
	v.identify(shown)
	if found := v.got.Identity.Found; before.Found != "" && !sameSerial(before.Found, found) {
		v.got.Identity = before
		return fmt.Errorf("%w: %s, and now %s", errOther, before.Found, found)
	}
	return nil
}

// ask reads one register into its lane.
func (v *visit) ask(ctx context.Context, s *session, w wanted) error {
	code, isTime, err := codeOf(w.channel)
	if err != nil {
		v.failed(w.channel, err)
		return nil
	}
	e, err := v.register(ctx, s, addressOf(code))
	if isRefused(err) {
		v.absent[w.channel] = true
		v.failed(w.channel, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", addressOf(code), err)
	}
	v.take(w.lane, w.channel, e, isTime)
	return nil
}

// askClock reads time and date.
func (v *visit) askClock(ctx context.Context, s *session) error {
	_, found, err := v.readClock(ctx, s)
	if err == nil {
		v.got.Clock = found
		return nil
	}
	return v.clockFailed(err)
}

// clockFailed notes what is about the clock alone, and gives what ends the
// session.
func (v *visit) clockFailed(err error) error {
	if !isRefused(err) && !errors.Is(err, errNoValue) {
		return fmt.Errorf("clock: %w", err)
	}
	v.absent[valueChannel(clockCode())] = isRefused(err)
	v.failed(valueChannel(clockCode()), err)
	return nil
}
