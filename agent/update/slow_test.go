package update_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/update"
	"gridgate/internal/linktest"
)

// gprs is the link of the reference site: 20 kbit/s and 600 ms.
func gprs() linktest.Config { return linktest.Config{Rate: 20_000, Delay: 300 * time.Millisecond} }

// large is an update of what the firmware has when it is packed: 3.5 MB.
func large(t testing.TB, p *pile, part int64) ([]update.File, map[string][]byte) {
	t.Helper()
	content := noise(3_500_000, 5)
	return []update.File{p.add(t, "gridgate", content, content, update.PackNone, part)}, map[string][]byte{"gridgate": content}
}

// world is a web server behind a slow link.
type world struct {
	link *linktest.Link
	from *counting
}

// simulate runs f in simulated time.
func simulate(t *testing.T, p *pile, config linktest.Config, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{link: linktest.New(config)}
		server := &http.Server{Handler: http.FileServer(http.Dir(p.lay(t)))}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(w.link.Listener()) // until it is closed
		}()
		h, err := update.NewHTTP("http://host", nil, w.link.Dial)
		if err != nil {
			t.Fatal(err)
		}
		w.from = &counting{from: h, came: map[string]int{}}
		f(t, w)
		h.Close()
		w.link.Set(linktest.Cut)
		_ = server.Close()
		<-done
	})
}

// counting counts what a source gives.
type counting struct {
	from update.Source

	mu   sync.Mutex
	came map[string]int // whole parts, by object and offset
	days map[int64]int64
}

func (c *counting) Fetch(ctx context.Context, wants []update.Want, take func(w update.Want, data []byte)) error {
	return c.from.Fetch(ctx, wants, func(w update.Want, data []byte) {
		c.mu.Lock()
		c.came[fmt.Sprintf("%x %d", w.Object[:4], w.Offset)]++
		if c.days != nil {
			c.days[time.Now().Unix()/86400] += int64(len(data))
		}
		c.mu.Unlock()
		take(w, data)
	})
}

// TestSlowLink: 3.5 MB over 20 kbit/s keep the link busy for at least 90 % of the
// time.
func TestSlowLink(t *testing.T) {
	t.Parallel()
	for _, part := range []int64{4096, 16384, 65536} {
		p := newPile()
		files, contents := large(t, p, part)
		simulate(t, p, gprs(), func(t *testing.T, w *world) {
			j := begin(t, openStore(t, t.TempDir()), files, nil)
			begun := time.Now()
			if err := j.Fetch(t.Context(), w.from, update.Options{}); err != nil {
				t.Fatal(err)
			}
			took := time.Since(begun)
			_, back := w.link.Stats()
			busy := time.Duration(back.Wire) * 8 * time.Second / 20_000
			t.Logf("parts of %d: %v, busy %.1f %%, %d octets on the wire for 3500000", part, took.Round(time.Second), 100*busy.Seconds()/took.Seconds(), back.Wire)
			if busy < took*9/10 || back.Wire > 3_500_000*110/100 {
				t.Errorf("busy for %v of %v, %d octets", busy, took, back.Wire)
			}
			staged, err := j.Stage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			checkStaged(t, staged, contents)
		})
	}
}

// TestPaced: what is held to 256 octets a second takes its hours, and leaves the
// link alone.
func TestPaced(t *testing.T) {
	t.Parallel()
	p := newPile()
	files, _ := large(t, p, 8192)
	simulate(t, p, gprs(), func(t *testing.T, w *world) {
		j := begin(t, openStore(t, t.TempDir()), files, nil)
		begun := time.Now()
		if err := j.Fetch(t.Context(), w.from, update.Options{Rate: 256}); err != nil {
			t.Fatal(err)
		}
		want := time.Duration(3_500_000/256) * time.Second
		if took := time.Since(begun); took < want*98/100 || took > want*102/100 {
			t.Errorf("it took %v, not %v", took, want)
		}
	})
}

// TestInterrupted: the agent is stopped after hours, with a part on its way, and
// begins again days later; in between the link is dead for a day without anybody
// being told. No part comes twice.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	p := newPile()
	files, contents := large(t, p, 8192)
	simulate(t, p, gprs(), func(t *testing.T, w *world) {
		dir := t.TempDir()
		slow := update.Options{Rate: 256}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		j := begin(t, openStore(t, dir), files, nil)
		err := j.Fetch(ctx, w.from, slow)
		if cancel(); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		have, need := j.Progress()
		if have < need/3 || have > need*2/3 {
			t.Errorf("after 2 h: %d of %d", have, need)
		}
		time.Sleep(60 * time.Hour)
		j = begin(t, openStore(t, dir), files, nil)
		if again, _ := j.Progress(); again != have {
			t.Errorf("%d octets are there, %d were", again, have)
		}
		outage := time.AfterFunc(time.Hour, func() { w.link.Set(linktest.BlackHole) })
		defer outage.Stop()
		back := time.AfterFunc(25*time.Hour, func() { w.link.Set(linktest.Up) })
		defer back.Stop()
		begun, waits := time.Now(), 0
		slow.Tell = func(why error, _ time.Duration) {
			if why != nil {
				waits++
			}
		}
		if err := j.Fetch(t.Context(), w.from, slow); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < 25*time.Hour || took > 28*time.Hour || waits < 10 {
			t.Errorf("it took %v, with %d pauses", took, waits)
		}
		if most := slices.Max(slices.Collect(maps.Values(w.from.came))); most != 1 || len(w.from.came) != files[0].Parts()+1 {
			t.Errorf("%d times, %d parts", most, len(w.from.came))
		}
		staged, err := j.Stage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		checkStaged(t, staged, contents)
	})
}

// TestBudget: a budget of half a megabyte a day is kept, and used.
func TestBudget(t *testing.T) {
	t.Parallel()
	const daily = 500_000
	p := newPile()
	files, _ := large(t, p, 16384)
	simulate(t, p, gprs(), func(t *testing.T, w *world) {
		w.from.days = map[int64]int64{}
		spent, held := map[int64]int64{}, 0
		o := update.Options{
			May: func(n int64) time.Duration {
				now := time.Now()
				day := now.Unix() / 86400
				if spent[day]+n > daily {
					return time.Unix((day+1)*86400, 0).Sub(now)
				}
				spent[day] += n
				return 0
			},
			Tell: func(why error, pause time.Duration) {
				if why != nil && !errors.Is(why, update.ErrBudget) || pause > 24*time.Hour {
					t.Error(why, pause)
				}
				held++
			},
		}
		if err := begin(t, openStore(t, t.TempDir()), files, nil).Fetch(t.Context(), w.from, o); err != nil {
			t.Fatal(err)
		}
		if n := len(w.from.days); n < 7 || n > 9 || held < 7 {
			t.Errorf("%d days, held back %d times: %v", n, held, w.from.days)
		}
		for day, n := range w.from.days {
			if n > daily+maxBatch { // what was asked for before midnight may come after it
				t.Errorf("day %d: %d octets", day, n)
			}
		}
	})
}

const maxBatch = 256 << 10

// TestBrokerLikeSource: a source that gives parts one at a time, each after a
// round trip, and loses every tenth answer.
func TestBrokerLikeSource(t *testing.T) {
	t.Parallel()
	p := newPile()
	files, contents := large(t, p, 16384)
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p.fail = func(w update.Want, data []byte) ([]byte, error) {
			if n++; n%10 == 0 {
				time.Sleep(2 * time.Minute)
				return nil, errors.New("no answer")
			}
			time.Sleep(600*time.Millisecond + time.Duration(w.Size)*8*time.Second/20_000)
			return data, nil
		}
		dir := t.TempDir()
		j := begin(t, openStore(t, dir), files, nil)
		if err := j.Fetch(t.Context(), p, update.Options{}); err != nil {
			t.Fatal(err)
		}
		if p.octets != 3_500_000+int64(files[0].Parts()*32) {
			t.Errorf("%d octets", p.octets)
		}
		staged, err := j.Stage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		checkStaged(t, staged, contents)
	})
}
