package uplink_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gridgate/agent/uplink"
	"gridgate/internal/column/columntest"
	"gridgate/internal/linktest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

const partSize = 16 << 10

// firmware retains n parts at the broker.
func (s *site) firmware(n int) (sums [][16]byte, parts map[[16]byte][]byte) {
	parts = map[[16]byte][]byte{}
	for i := range n {
		b := bytes.Repeat([]byte{byte(i), byte(i >> 8), 7}, partSize/3+1)[:partSize]
		h := sha256.Sum256(b)
		sum := [16]byte(h[:16])
		sums, parts[sum] = append(sums, sum), b
		s.broker.Send(mqtt.PartOfFirmware("site", sum), true, b)
	}
	return sums, parts
}

// fetcher asks for parts, four at a time, until all have come.
type fetcher struct {
	all  sync.WaitGroup
	stop context.CancelFunc
	have atomic.Int64
}

func (s *site) fetch(sums [][16]byte, want map[[16]byte][]byte) *fetcher {
	ctx, cancel := context.WithCancel(s.t.Context())
	f := &fetcher{stop: cancel}
	queue := make(chan [16]byte, len(sums))
	for _, sum := range sums {
		queue <- sum
	}
	close(queue)
	for range 4 {
		f.all.Go(func() {
			for sum := range queue {
				b, err := s.config.Parts.Get(ctx, sum)
				if ctx.Err() != nil {
					return
				}
				if err != nil || !bytes.Equal(b, want[sum]) {
					s.t.Errorf("part %x: %d octets, %v", sum, len(b), err)
				}
				f.have.Add(1)
			}
		})
	}
	return f
}

func (s *site) wait(f *fetcher) {
	f.all.Wait()
	f.stop()
	time.Sleep(10 * time.Second)
	if got := s.subscribed(); len(got) > 0 {
		s.t.Errorf("still subscribed to %d: %s", len(got), got[0])
	}
}

// subscribed gives the parts that the broker would send.
func (s *site) subscribed() []string {
	return slices.DeleteFunc(s.broker.Subscribed(mqtt.ClientID("site", "gw")), func(topic string) bool { return !strings.Contains(topic, "_firmware") })
}

// A link with nothing else to do is used by parts.
func TestPartsComeAsFastAsTheLinkAllows(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		link  linktest.Config
		least float64
	}{
		"20 kbit/s": {gprs(), 0.9},
		"2 Mbit/s":  {linktest.Config{Rate: 2_000_000, Delay: 50 * time.Millisecond}, 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			simulate(t, c.link, func(s *site) {
				s.config.Parts = uplink.NewParts()
				s.start()
				time.Sleep(10 * time.Second)
				_, before := s.link.Stats()
				began := time.Now()
				sums, parts := s.firmware(100)
				f := s.fetch(sums, parts)
				f.all.Wait()
				took := time.Since(began)
				_, after := s.link.Stats()
				share := float64(after.Wire-before.Wire) * 8 / float64(c.link.Rate) / took.Seconds()
				t.Logf("100 parts in %v, link busy %.1f %%", took, 100*share)
				if share < c.least {
					t.Errorf("the link was busy %.1f %% of the time", 100*share)
				}
				s.wait(f)
				if n := s.broker.Connects(); n != 1 {
					t.Errorf("%d connections", n)
				}
			})
		})
	}
}

// alarms come now and then; it gives how long the slowest took to the broker.
func (s *site) alarms(n int) (worst time.Duration) {
	var at []time.Time
	for i := range n {
		time.Sleep(2*time.Second + time.Duration(i*137%1000)*time.Millisecond)
		at = append(at, time.Now())
		s.store.add(meter.Alarm, reading(i))
	}
	time.Sleep(10 * time.Second)
	f := s.fog()
	for i, t0 := range at {
		got, ok := f.first[meter.Alarm][uint64(i+1)]
		if !ok {
			s.t.Fatalf("alarm %d has not come", i+1)
		}
		worst = max(worst, got.Sub(t0))
	}
	return worst
}

// Readings and alarms with parts coming down, and without: an alarm is there in
// time, what is read every minute is not late, and the parts still come.
func TestReadingsGoFirst(t *testing.T) {
	t.Parallel()
	latency := func(t *testing.T, fetching bool) (alarm, readings time.Duration, have int64) {
		t.Helper()
		link := gprs()
		link.Queue, link.Window = 128<<10, 128<<10 // a broker goes on reading while it writes a part
		simulate(t, link, func(s *site) {
			s.config.Parts = uplink.NewParts()
			w := columntest.NewWalk(1, 60, columntest.Int)
			s.store.add(meter.Interval, w.Round()...)
			s.start()
			time.Sleep(time.Minute)
			sums, parts := s.firmware(200)
			f := &fetcher{stop: func() {}}
			if fetching {
				f = s.fetch(sums, parts)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 8 {
					time.Sleep(30 * time.Second)
					began := time.Now()
					s.store.add(meter.Interval, w.Round()...)
					last := s.store.Last(meter.Interval)
					for s.store.Acked(meter.Interval) < last {
						time.Sleep(10 * time.Millisecond)
					}
					readings = max(readings, time.Since(began))
				}
			}()
			alarm = s.alarms(100)
			<-done
			have = f.have.Load()
			f.stop()
			f.all.Wait()
			if n := s.broker.Connects(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
		return alarm, readings, have
	}
	a0, r0, _ := latency(t, false)
	a1, r1, have := latency(t, true)
	t.Logf("without: alarms %v, readings acknowledged in %v; with a fetch: %v, %v, %d parts of 16 KiB", a0, r0, a1, r1, have)
	if a1 > 2*time.Second {
		t.Errorf("an alarm took %v", a1)
	}
	if r1 > r0+30*time.Second {
		t.Errorf("readings took %v, and %v without parts", r1, r0)
	}
	if have < 10 {
		t.Errorf("%d parts came", have)
	}
}

// A backlog of hours drains about as fast as without parts, and they come now
// and then.
func TestABacklogAndFirmware(t *testing.T) {
	t.Parallel()
	drain := func(t *testing.T, fetching bool) (took time.Duration, have int64) {
		t.Helper()
		simulate(t, gprs(), func(s *site) {
			s.config.Parts = uplink.NewParts()
			s.store.add(meter.Interval, readings(60_000)...)
			sums, parts := s.firmware(300)
			s.start()
			f := &fetcher{stop: func() {}}
			if fetching {
				f = s.fetch(sums, parts)
			}
			began := time.Now()
			s.drained(3 * time.Hour)
			took, have = time.Since(began), f.have.Load()
			f.stop()
			f.all.Wait()
			s.fog().check(t, s.store)
		})
		return took, have
	}
	alone, _ := drain(t, false)
	both, have := drain(t, true)
	t.Logf("alone %v, with parts %v, in which %d came", alone, both, have)
	if both > alone*3/2 {
		t.Errorf("the backlog took %v, and %v alone", both, alone)
	}
	if have < 2 {
		t.Errorf("%d parts came", have)
	}
}

// What was asked for is asked for again, over connections that break and over
// uplinks; a part at most goes twice over a slow link each time.
func TestPartsOverOutages(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.config.Parts = uplink.NewParts()
		s.start()
		time.Sleep(10 * time.Second)
		sums, parts := s.firmware(60)
		f := s.fetch(sums, parts)
		_, before := s.link.Stats()
		for i := range 5 {
			time.Sleep(40*time.Second + time.Duration(i)*1700*time.Millisecond)
			s.link.Set([]linktest.Outage{linktest.Cut, linktest.BlackHole}[i%2])
			time.Sleep(time.Duration(i) * 20 * time.Second)
			s.link.Set(linktest.Up)
		}
		time.Sleep(40 * time.Second)
		s.end() // a configuration that changes the uplink
		s.start()
		s.wait(f)
		_, after := s.link.Stats()
		if most := uint64(60+7) * (partSize + 1200); after.Wire-before.Wire > most {
			t.Errorf("%d octets came down, %d are the most", after.Wire-before.Wire, most)
		}
	})
}

// 64 KiB before a PUBACK take 26 s: that is no dead connection.
func TestALongPartIsNoDeadConnection(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.config.Parts = uplink.NewParts()
		s.start()
		time.Sleep(10 * time.Second)
		long := bytes.Repeat([]byte("x"), 64<<10)
		h := sha256.Sum256(long)
		sum := [16]byte(h[:16])
		s.broker.Send(mqtt.PartOfFirmware("site", sum), true, long)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if b, err := s.config.Parts.Get(s.t.Context(), sum); err != nil || !bytes.Equal(b, long) {
				t.Errorf("%d octets, %v", len(b), err)
			}
		}()
		time.Sleep(2 * time.Second)
		s.store.add(meter.Interval, reading(1))
		<-done
		s.drained(time.Minute)
		if n := s.broker.Connects(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestAPartThatIsNotThere(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.config.Parts = uplink.NewParts()
		s.broker.Forbid = func(topic string) bool { return strings.HasSuffix(topic, "ff") }
		s.start()
		time.Sleep(10 * time.Second)
		began := time.Now()
		if _, err := s.config.Parts.Get(s.t.Context(), [16]byte{1}); !errors.Is(err, uplink.ErrNoPart) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took < 50*time.Second || took > 90*time.Second {
			t.Errorf("it was known after %v", took)
		}
		if _, err := s.config.Parts.Get(s.t.Context(), [16]byte{15: 0xFF}); !errors.Is(err, mqtt.ErrRefused) {
			t.Errorf("got %v", err)
		}
		// Nobody says that it is not there while nobody can say so.
		s.link.Set(linktest.BlackHole)
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Hour)
		defer cancel()
		if _, err := s.config.Parts.Get(ctx, [16]byte{2}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a link: %v", err)
		}
		if s.config.Parts.Waits() == "" {
			t.Error("nobody says what it waits for")
		}
		s.link.Set(linktest.Up)
		sums, parts := s.firmware(1)
		s.wait(s.fetch(sums, parts))
	})
}

// Firmware has half of a day's budget: the next day it goes on.
func TestFirmwareHasHalfOfTheBudget(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		ledger := &memLedger{}
		s.config.Parts = uplink.NewParts()
		s.config.Budget, s.config.Ledger = uplink.Budget{Day: 1_000_000}, ledger
		s.start()
		time.Sleep(10 * time.Second)
		_, before := s.link.Stats()
		sums, parts := s.firmware(60)
		f := s.fetch(sums, parts)
		time.Sleep(6 * time.Hour)
		s.end()
		s.start() // nothing is forgiven by a restart
		time.Sleep(6 * time.Hour)
		_, after := s.link.Stats()
		if down := after.Wire - before.Wire; down < 430_000 || down > 530_000 {
			t.Errorf("%d octets came down in a day", down)
		}
		if why := s.config.Parts.Waits(); !strings.Contains(why, "budget") {
			t.Errorf("it waits for %q", why)
		}
		s.store.add(meter.Interval, readings(100)...)
		s.drained(time.Minute) // readings have the other half
		time.Sleep(2 * 24 * time.Hour)
		s.wait(f)
	})
}
