package plc

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// asked is a meter that notes what it is asked.
type asked struct {
	asks []meter.Ask
	rows []meter.Row
	err  error
}

func (a *asked) Visit(_ context.Context, ask meter.Ask) (meter.Got, error) {
	a.asks = append(a.asks, ask)
	if len(ask.Groups) == 0 {
		return meter.Got{}, nil
	}
	return meter.Got{Rows: a.rows}, a.err
}

func (a *asked) Close() error { return nil }

func TestQuality(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Kind: Prime})
		node := b.Node("A")
		m := &asked{rows: []meter.Row{
			{Channel: "0-0:28.3.0*255/83:8", Value: meter.UintValue(2, 0)},
			{Channel: "0-0:28.4.0*255/84:2", Value: meter.UintValue(100, 0)},
			{Channel: "0-0:28.4.0*255/84:6", Value: meter.TextValue("no number")},
		}}
		v := Observe(m, node)
		visit := func() {
			t.Helper()
			if got, err := v.Visit(t.Context(), meter.Ask{}); err != nil || len(got.Rows) > 0 {
				t.Errorf("%v, %v", got, err)
			}
		}
		visit()
		if len(m.asks) != 1 || !b.Table().Nodes[0].Quality.IsZero() {
			t.Errorf("in the first hour it was asked %d times", len(m.asks))
		}
		time.Sleep(26 * time.Hour)
		visit()
		want := Quality{At: time.Now(), Level: 2, Sent: 100}
		if q := b.Table().Nodes[0].Quality; q != want || len(m.asks) != 3 || len(m.asks[2].Groups[0].Channels) != 5 {
			t.Errorf("%+v, asked %v", q, m.asks)
		}
		time.Sleep(23 * time.Hour)
		visit()
		if len(m.asks) != 4 {
			t.Errorf("asked %d times", len(m.asks))
		}
		m.rows = nil // it has none any more: a week
		time.Sleep(2 * time.Hour)
		visit()
		time.Sleep(6 * 24 * time.Hour)
		visit()
		if len(m.asks) != 7 || b.Table().Nodes[0].Quality != want {
			t.Errorf("asked %d times", len(m.asks))
		}
		m.asks, m.err = nil, errors.New("it fell silent")
		time.Sleep(2 * 24 * time.Hour)
		visit() // what was asked for was read
		visit() // and what costs time-outs is not asked for in each visit
		if len(m.asks) != 3 {
			t.Errorf("asked %d times", len(m.asks))
		}
		m.err = meter.ErrAuthentication
		time.Sleep(25 * time.Hour)
		if _, err := v.Visit(t.Context(), meter.Ask{}); !errors.Is(err, meter.ErrAuthentication) {
			t.Errorf("a refusal is kept from who counts them: %v", err)
		}
		if w := Observe(m, New(Config{Kind: Gateway}).Node("\x00A")); w != meter.Visitor(m) {
			t.Error("a gateway's meters have no such classes")
		}
	})
}
