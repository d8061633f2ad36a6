package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"gridgate/internal/meter"
)

// onMeter is an action that is one act of a meter's driver.
type onMeter struct {
	act meter.Act
	// said gives the text of what was done, in place of the usual one.
	said func(o *meter.Outcome, usual string) string
}

// Do does it, and tries again only while nothing was sent.
func (m onMeter) Do(ctx context.Context, j *Job) Outcome {
	o, err := perform(ctx, j, m.act)
	out := outcomeOf(&o, err)
	if out.State == Done && m.said != nil {
		out.Text = m.said(&o, out.Text)
	}
	return out
}

// ReadBack looks what is the case.
func (m onMeter) ReadBack(ctx context.Context, j *Job) Outcome {
	o, err := perform(ctx, j, meter.Look{At: m.act})
	out := outcomeOf(&o, err)
	if out.State == Done {
		out.Text = factsText(o.After)
	}
	return out
}

// pauses are between the tries of a meter that nothing could be sent to.
func pauses() []time.Duration {
	return []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute}
}

// perform has an act done. It is tried again while nothing was sent and the
// meter did not answer; never behind that.
func perform(ctx context.Context, j *Job, act meter.Act) (o meter.Outcome, err error) {
	for try := 0; ; try++ {
		var got meter.Got
		got, err = j.Visit(ctx, meter.Ask{Acts: []meter.Act{act}, Serial: j.Serial})
		if o = (meter.Outcome{Act: act}); len(got.Done) > 0 {
			o = got.Done[0]
		}
		if o.Result != meter.NotTried || o.Sent || !mayTryAgain(err) || try == len(pauses()) {
			return o, err
		}
		pause := pauses()[try]
		if !time.Now().Add(pause).Before(j.Expires) {
			return o, err
		}
		j.Progress(int64(try+1), int64(len(pauses())+1), "nothing was sent: "+err.Error())
		if rest(ctx, pause) != nil {
			return o, err
		}
	}
}

func mayTryAgain(err error) bool {
	return errors.Is(err, meter.ErrNoAnswer) || errors.Is(err, meter.ErrGarbled) || errors.Is(err, meter.ErrNoLine)
}

// rest waits.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// outcomeOf tells what came of an act.
func outcomeOf(o *meter.Outcome, err error) Outcome {
	out := Outcome{Data: dataOf(o)}
	if o.Err != nil {
		err = o.Err
	}
	why := "no reason is known"
	if err != nil {
		why = err.Error()
	}
	switch o.Result {
	case meter.Done:
		out.State = Done
		if out.Text = factsText(o.After); !o.Sent && len(o.Before) > 0 {
			out.Text = strings.TrimSuffix("it was so already: "+out.Text, ": ")
		}
	case meter.Refused:
		out.State, out.Text = Refused, why
	case meter.Unknown:
		out.State, out.Text = Unknown, "it was sent, and no answer came: "+why
		if len(o.After) > 0 {
			out.Text += "; now: " + factsText(o.After)
		}
	case meter.Failed:
		out.State, out.Text = Failed, why
	case meter.Pending:
		out.State, out.Text = Failed, "it was not finished: "+why
	case meter.NotTried:
		out.State, out.Text = Failed, "nothing was sent: "+why
	}
	return out
}

func factsText(facts []meter.Fact) string {
	var all []string
	for _, f := range facts {
		all = append(all, f.Name+" "+f.Value)
	}
	return strings.Join(all, ", ")
}

// shown is what a result tells of what a meter showed.
type shown struct {
	Sent   *time.Time        `json:"sent,omitempty"`
	Before map[string]string `json:"before,omitempty"`
	After  map[string]string `json:"after,omitempty"`
}

func dataOf(o *meter.Outcome) any {
	s := shown{Before: factsMap(o.Before), After: factsMap(o.After)}
	if o.Sent && o.At.Time != 0 {
		t := time.UnixMilli(o.At.Time).UTC()
		s.Sent = &t
	}
	if s.Sent == nil && s.Before == nil && s.After == nil {
		return nil
	}
	return s
}

func factsMap(facts []meter.Fact) map[string]string {
	if len(facts) == 0 {
		return nil
	}
	m := make(map[string]string, len(facts))
	for _, f := range facts {
		if at, ok := m[f.Name]; ok {
			f.Value = at + "; " + f.Value
		}
		m[f.Name] = f.Value
	}
	return m
}

// problems gathers all that is wrong with parameters.
type problems []error

func (p *problems) add(err error) {
	if err != nil {
		*p = append(*p, err)
	}
}

func (p *problems) wrong(key, format string, args ...any) { p.add(wrong(key, format, args...)) }

func (p *problems) err() error { return errors.Join(*p...) }

// noted reads the last note, and says whether there was one.
func noted(j *Job, into any) (bool, error) {
	if j.Noted == nil {
		return false, nil
	}
	if err := json.Unmarshal(j.Noted, into); err != nil {
		return false, fmt.Errorf("what was noted before the cut cannot be read: %w", err)
	}
	return true, nil
}
