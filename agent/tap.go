package agent

import (
	"context"
	"errors"
	"fmt"

	"gridgate/agent/status"
)

var (
	errNoTap  = errors.New("several meters talk at a time on a power line: it cannot be listened to")
	errTapped = errors.New("enough tools listen to this line")
)

// tap gives each what passes on a line, an empty one first, until ctx or each ends
// it. A line that a change of the configuration takes away ends it too.
func (a *Agent) tap(ctx context.Context, name string, each func(status.Passed) error) error {
	a.mu.Lock()
	r, ok := a.lines[a.lineKey(name)]
	a.mu.Unlock()
	switch {
	case !ok:
		return fmt.Errorf("line %s: %w", name, status.ErrUnused)
	case r.single == nil:
		return fmt.Errorf("line %s: %w", name, errNoTap)
	}
	passed, stop, ok := r.single.Tap()
	if !ok {
		return fmt.Errorf("line %s: %w", name, errTapped)
	}
	defer stop()
	if err := each(status.Passed{}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case p, open := <-passed:
			if !open {
				return nil
			}
			settings := ""
			if p.Settings.Baud > 0 {
				settings = p.Settings.String()
			}
			if err := each(status.Passed{At: p.At.UnixMicro(), Sent: p.Sent, Settings: settings, Data: p.Data, Lost: p.Lost}); err != nil {
				return err
			}
		}
	}
}
