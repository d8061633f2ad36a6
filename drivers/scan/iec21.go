package scan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"gridgate/dlms/modee"
	"gridgate/drivers/iec21"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

const (
	signOnBaud  = 300
	signOnWait  = 2200 * time.Millisecond // 1.5 s by the standard, and what an adapter adds
	signOnPause = 1700 * time.Millisecond // in which a conversation that was cut off ends
	readoutMost = 90 * time.Second
	signOnBytes = 5
)

func (s *Scan) iec21Step() step {
	set := line.Settings{Baud: signOnBaud, DataBits: 7, Parity: 'E', StopBits: 1}
	if s.isNetwork() {
		set = line.Settings{}
	}
	what := "IEC 62056-21, sign-on"
	if !s.isNetwork() {
		what += " at " + set.String()
	}
	return step{what: what, estimate: signOnWait + signOnBytes*set.CharTime(), run: func(ctx context.Context) error {
		return s.signOn(ctx, set)
	}}
}

// signOn calls whoever is there. A line with several needs their device addresses.
func (s *Scan) signOn(ctx context.Context, set line.Settings) error {
	request := []byte("/?!\r\n")
	heard, err := s.call21(ctx, set, request)
	if err != nil && !s.brokeOff(err) {
		return err
	}
	if bytes.HasPrefix(heard, request) {
		s.note(fmt.Sprintf("echo: what is sent comes back at %v; an optical head hears itself", set))
		heard = heard[len(request):]
	}
	at := bytes.IndexByte(heard, '/')
	if at < 0 {
		return nil
	}
	heard = heard[at:]
	if end := bytes.IndexByte(heard, '\n'); end >= 0 {
		heard = heard[:end+1]
	}
	id, ok := identification(heard)
	if !ok {
		s.note(fmt.Sprintf("something answered the sign-on at %v, and no identification can be read in it (%q): several meters at once?", set, heard[:min(len(heard), 24)]))
		return nil
	}
	f := Found{Protocol: IEC21, Settings: set, Says: fmt.Sprintf("%s %s", id.Maker, id.Device)}
	if id.HasHDLC() {
		f.Note = "has DLMS too, by mode E: dlms+modee"
	}
	return s.readOut(ctx, f)
}

func identification(b []byte) (modee.Identification, bool) {
	id, err := modee.ParseIdentification(b)
	return id, err == nil
}

// call21 sends a sign-on and gives what came.
func (s *Scan) call21(ctx context.Context, set line.Settings, request []byte) (heard []byte, err error) {
	err = s.cfg.Line.Do(ctx, set, func(_ context.Context, port line.Port) error {
		sent := time.Duration(len(request)) * set.CharTime()
		if err := port.SetDeadline(time.Now().Add(sent + time.Second)); err != nil {
			return err
		}
		if _, err := port.Write(request); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		var buf [128]byte
		for until := time.Now().Add(sent + signOnWait); len(heard) < 512; {
			if err := port.SetDeadline(until); err != nil {
				return err
			}
			n, err := port.Read(buf[:])
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			if err != nil {
				return err
			}
			for _, c := range buf[:n] {
				heard = append(heard, c&0x7F)
			}
			if answer := bytes.TrimPrefix(heard, request); bytes.HasPrefix(answer, []byte("/")) && bytes.HasSuffix(answer, []byte("\r\n")) {
				return nil
			}
			until = time.Now().Add(signOnPause)
		}
		return nil
	})
	return heard, err
}

// readOut reads the meter as the agent does: the second time that it answers.
func (s *Scan) readOut(ctx context.Context, f Found) error {
	s.asks(f.Says)
	if !s.pause(ctx, signOnPause) {
		return context.Cause(ctx)
	}
	format := f.Settings
	m := iec21.New(iec21.Config{ID: "scan", SignOn: f.Settings.Baud, Format: format, Now: s.cfg.Now}, s.cfg.Line)
	read, cancel := context.WithTimeout(ctx, readoutMost)
	defer cancel()
	got, err := m.Visit(read, meter.Ask{Groups: []meter.Group{{Name: "scan", Lane: meter.Instant}}})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, meter.ErrNoLine):
		return err
	case errors.Is(err, meter.ErrNoAnswer):
		s.note(fmt.Sprintf("a meter of IEC 62056-21 answered the sign-on once (%s), and then did not", f.Says))
		return nil
	case err != nil:
		f.Note = "signs on, and the readout failed: " + err.Error()
	}
	f.Serial = got.Identity.Found
	s.add(f)
	return nil
}

func (s *Scan) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
