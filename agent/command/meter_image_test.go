package command

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"gridgate/internal/meter"
)

const imageText = "the image of a meter, of a few octets"

func imageSum() string { return fmt.Sprintf("%x", sha256.Sum256([]byte(imageText))) }

func bring(dir string, offset, end, size int) Outcome {
	j := jobOf(nil)
	j.Gateway.Meters.Images = dir
	m := meterImage{sum: imageSum(), size: int64(size), offset: int64(offset), data: []byte(imageText[offset:end])}
	return m.Do(context.Background(), j)
}

// TestImageParts brings an image in parts, some of them twice, and one too early.
func TestImageParts(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "images")
	n := len(imageText)
	for _, c := range []struct {
		from, to int
		state    State
	}{{5, 10, Refused}, {0, 5, Done}, {0, 5, Done}, {3, 10, Done}, {10, n, Done}, {0, 5, Done}} {
		if out := bring(dir, c.from, c.to, n); out.State != c.state {
			t.Errorf("%d to %d: %+v", c.from, c.to, out)
		}
	}
	f, size, err := images(dir).open(imageSum())
	if err != nil || size != int64(n) {
		t.Fatalf("%d, %v", size, err)
	}
	f.Close()
	if err := os.WriteFile(images(dir).path(imageSum()), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := images(dir).open(imageSum()); err == nil {
		t.Error("an image that was damaged is opened")
	}
	j := jobOf(nil)
	j.Gateway.Meters.Images = dir
	if out := (meterImage{sum: imageSum(), remove: true}).Do(t.Context(), j); out.State != Done {
		t.Errorf("%+v", out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
	// Of another size the whole is another image, and begins anew.
	if out := bring(dir, 0, n-1, n-1); out.State != Refused {
		t.Errorf("another image: %+v", out)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v is left of it", left)
	}
}

// TestImagesFull takes no more images than there is room for.
func TestImagesFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range mostImages {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out := bring(dir, 0, 5, len(imageText)); out.State != Refused || !strings.Contains(out.Text, "remove one") {
		t.Errorf("%+v", out)
	}
}

// imageMeter is a meter that an image goes into, block by block.
type imageMeter struct {
	reached    uint32
	initiated  int
	activated  int
	verifying  int
	silent     func(visit int) bool
	visits     int
	noAnswer   bool // to the activation
	activating int
	status     string
}

func (m *imageMeter) visit(ask meter.Ask) (meter.Got, error) {
	m.visits++
	o := meter.Outcome{Act: ask.Acts[0]}
	if m.silent != nil && m.silent(m.visits) {
		return meter.Got{Done: []meter.Outcome{o}}, meter.ErrNoAnswer
	}
	give := func(result meter.Result, image string) (meter.Got, error) {
		m.status = image
		o.Result, o.After = result, []meter.Fact{{Name: "image", Value: image}}
		return meter.Got{Done: []meter.Outcome{o}}, nil
	}
	act, is := ask.Acts[0].(meter.Image)
	if !is {
		if m.activating > 0 {
			if m.activating--; m.activating == 0 {
				m.status = "activated"
			}
		}
		return give(meter.Done, m.status)
	}
	o.Sent, o.All = true, act.Size
	if !act.Begun {
		m.initiated++
		m.reached = 0
	}
	o.Begun = true
	if m.reached < act.Size {
		m.reached = min(act.Size, m.reached+10)
		o.Reached = m.reached
		return give(meter.Pending, "initiated")
	}
	o.Reached = act.Size
	if m.verifying > 0 {
		m.verifying--
		return give(meter.Pending, "verifying")
	}
	if !act.Activate {
		return give(meter.Done, "verified")
	}
	m.activated++
	switch {
	case m.noAnswer:
		o.Result, o.Err = meter.Unknown, meter.ErrNoAnswer
		return meter.Got{Done: []meter.Outcome{o}}, meter.ErrNoAnswer
	case m.activating > 0:
		return give(meter.Pending, "activating")
	}
	return give(meter.Done, "activated")
}

func imageJob(t *testing.T, m *imageMeter) *Job {
	t.Helper()
	j := jobOf(m.visit)
	j.Gateway.Meters.Images = t.TempDir()
	if err := os.WriteFile(images(j.Gateway.Meters.Images).path(imageSum()), []byte(imageText), 0o600); err != nil {
		t.Fatal(err)
	}
	return j
}

func TestMeterFirmware(t *testing.T) {
	t.Parallel()
	firmware := meterFirmware{sum: imageSum(), identifier: "F", activate: true}
	for name, c := range map[string]struct {
		meter     imageMeter
		firmware  meterFirmware
		state     State
		activated int
	}{
		"all goes well":           {imageMeter{}, firmware, Done, 1},
		"verified only":           {imageMeter{}, meterFirmware{sum: imageSum(), identifier: "F"}, Done, 0},
		"it verifies for a while": {imageMeter{verifying: 3}, firmware, Done, 1},
		"it is away for a while":  {imageMeter{silent: func(n int) bool { return n > 2 && n < 14 }}, firmware, Done, 1},
		"it is not there":         {imageMeter{silent: func(int) bool { return true }}, firmware, Failed, 0},
		"no answer at the end":    {imageMeter{noAnswer: true}, firmware, Unknown, 1},
		"it takes its time":       {imageMeter{activating: 3}, firmware, Done, 1},
		"no such image":           {imageMeter{}, meterFirmware{sum: someSum}, Refused, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := c.meter
				out := c.firmware.Do(t.Context(), imageJob(t, &m))
				if out.State != c.state || m.activated != c.activated || m.initiated > 1 {
					t.Errorf("%v %q; begun %d times, activated %d", out.State, out.Text, m.initiated, m.activated)
				}
			})
		})
	}
}

// TestMeterFirmwareCut cuts the gateway off behind every visit, and goes on: the
// transfer begins once, and the activation is sent once.
func TestMeterFirmwareCut(t *testing.T) {
	t.Parallel()
	for at := 1; at <= 8; at++ {
		synctest.Test(t, func(t *testing.T) {
			m := imageMeter{verifying: 1}
			j := imageJob(t, &m)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			off := false
			j.Note = func(v any) error {
				if !off {
					j.Noted, _ = json.Marshal(v)
				}
				return nil
			}
			j.Visit = func(_ context.Context, ask meter.Ask) (meter.Got, error) {
				got, err := m.visit(ask)
				if m.visits == at {
					off = true
					cancel()
					return meter.Got{}, errCut
				}
				return got, err
			}
			out := meterFirmware{sum: imageSum(), identifier: "F", activate: true}.Do(ctx, j)
			if off {
				off, j.Resumed = false, true
				out = meterFirmware{sum: imageSum(), identifier: "F", activate: true}.Do(t.Context(), j)
			}
			// Only of the first visit nobody knows that it began the transfer.
			if out.State != Done || m.activated != 1 || m.initiated != 1 && at > 1 || m.initiated > 2 {
				t.Errorf("cut behind visit %d: %v %q; begun %d times, activated %d", at, out.State, out.Text, m.initiated, m.activated)
			}
		})
	}
}
