package agent

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"gridgate/drivers/drivertest"
)

// TestTheModemsTime asks a modem on a pseudo-terminal.
func TestTheModemsTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ answer, want, err string }{
		"time":     {"AT+CCLK?\r\r\n+CREG: 1\r\n+CCLK: \"26/11/22,20:15:30+08\"\r\n\r\nOK\r\n", "2026-11-22T18:15:30Z", ""},
		"error":    {"\r\nERROR\r\n", "", `refuses AT+CCLK?`},
		"no time":  {"\r\nOK\r\n", "", "says OK and no time"},
		"silence":  {"", "", "deadline exceeded"},
		"no modem": {"none", "", "no such port"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := "/dev/gridgate-no-such-port"
			if c.answer != "none" {
				p, err := drivertest.Pty()
				if err != nil {
					t.Fatal(err)
				}
				path = p.Path
				answered := make(chan struct{})
				go func() {
					defer close(answered)
					if asked, err := bufio.NewReader(p).ReadString('\r'); err == nil && strings.HasSuffix(asked, "AT+CCLK?\r") {
						_, _ = io.WriteString(p, c.answer)
					}
				}()
				t.Cleanup(func() { _ = p.Close(); <-answered })
			}
			limit := time.Minute
			if c.answer == "" {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			got, err := (&networkTime{path: path}).NetworkTime(ctx)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, %v; want %q", got, err, c.err)
				}
				return
			}
			if err != nil || got.Format(time.RFC3339) != c.want {
				t.Errorf("%v, %v; want %s", got, err, c.want)
			}
		})
	}
}
