// Package timetest is a small world for tests of what depends on the time: a
// gateway with an oscillator that drifts, a kernel that slews and steps, a
// hardware clock or none, time servers and a network between. It is the same
// for the same seed.
//
// The true time of the world is time.Now(), which in a bubble of
// testing/synctest passes as fast as the test runs. Bubbles begin in the year
// 2000, when this program was not written yet: call Begin first.
package timetest

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"gridgate/agent/timesync"
	"gridgate/internal/sys"
)

// Config says what the world is like.
type Config struct {
	Seed uint64
	// Drift is what the oscillator is fast by, seconds a second; ±100e-6 is
	// the worst of cheap ones. Swing is by how much it follows the temperature
	// of the day, Walk by how much it may change in an hour, at random.
	Drift, Swing, Walk float64
	// Away is the system clock minus the true time at the first boot.
	Away time.Duration
	// HasRTC says whether there is a hardware clock; RTCDrift is its own.
	HasRTC   bool
	RTCDrift float64
	// Forbidden says that the process may not set the clock.
	Forbidden bool
	Servers   []Server
}

// Server is a time server of the world.
type Server struct {
	Name string
	// Off is how far its time is off and Claim what it says that it may be
	// off; it is a false ticker when Off is more than Claim.
	Off, Claim     time.Duration
	Unsynchronised bool
	Kiss           string // answers with this kiss-o'-death
	Leap           int
	// Trip is the shortest round trip, Jitter what may come on top of it, on
	// each way by itself. Lost is the part of packets that do not arrive.
	Trip, Jitter time.Duration
	Lost         float64
	Down         bool
}

// segment is how long the oscillator keeps one rate.
const segment = time.Hour

// World is such a world. Its methods are safe for concurrent use.
type World struct {
	cfg   Config
	start time.Time // true

	mu     sync.Mutex
	random *rand.Rand
	rates  []float64       // of the oscillator, by segment since start
	sums   []time.Duration // Raw's lead on the true time at each segment's begin
	phase  float64
	walk   float64

	bootRaw time.Duration // of the running boot: the oscillator's reading when it began
	kernel  kernel
	boot    uint32
	link    bool // the network is up
	rtcBase time.Time
	rtcSet  time.Time // true, when it was set
	slept   time.Duration
	leapAt  time.Time // true time at which the kernels and servers repeat a second, and by
	leapBy  time.Duration
	steps   int
}

// kernel is the state of the kernel's clock: Mono and Wall as of a reading of
// the oscillator.
type kernel struct {
	raw  time.Duration // oscillator
	mono time.Duration
	wall time.Duration // since 1970
	freq float64
	slew time.Duration // what is left
	sync bool
	max  time.Duration
	leap int
}

// Begin lets the time of a bubble pass until a moment.
func Begin(at time.Time) {
	t := time.NewTimer(time.Until(at))
	<-t.C
}

// New makes a world and boots the gateway in it.
func New(cfg Config) *World {
	w := &World{cfg: cfg, start: time.Now(), random: rand.New(rand.NewPCG(cfg.Seed, 8)), link: true}
	w.phase = w.random.Float64() * 2 * math.Pi
	w.rtcBase, w.rtcSet = w.start.Add(cfg.Away), w.start
	w.reboot(w.start.Add(cfg.Away))
	return w
}

// lead gives how far the oscillator is ahead of the true time that passed
// since the start. mu is held.
func (w *World) lead(since time.Duration) time.Duration {
	n := int(since / segment)
	for len(w.rates) <= n {
		i := len(w.rates)
		w.walk += w.cfg.Walk * (2*w.random.Float64() - 1)
		w.walk = min(max(w.walk, -10*w.cfg.Walk), 10*w.cfg.Walk)
		sum := time.Duration(0)
		if i > 0 {
			sum = w.sums[i-1] + time.Duration(w.rates[i-1]*float64(segment))
		}
		w.rates = append(w.rates, w.cfg.Drift+w.cfg.Swing*math.Sin(2*math.Pi*float64(i)/24+w.phase)+w.walk)
		w.sums = append(w.sums, sum)
	}
	return w.sums[n] + time.Duration(w.rates[n]*float64(since-time.Duration(n)*segment))
}

// oscillator gives its reading since the start of the world. mu is held.
func (w *World) oscillator() time.Duration {
	since := time.Since(w.start)
	return since + w.lead(since) - w.slept
}

// slewRate is the kernel's: 500 ppm.
const slewRate = 500e-6

// advance moves the kernel's clock to now. mu is held.
func (w *World) advance() {
	k, raw := &w.kernel, w.oscillator()
	span := raw - k.raw
	ahead := time.Duration(k.freq * float64(span))
	if most := time.Duration(slewRate * float64(span)); k.slew != 0 {
		part := min(max(k.slew, -most), most)
		k.slew -= part
		ahead += part
	}
	k.raw = raw
	k.mono += span + ahead
	k.wall += span + ahead
	k.max += time.Duration(500e-6 * float64(span))
	if end := nextDay(k.wall - span - ahead); k.leap != 0 && k.wall >= end {
		k.wall -= time.Duration(k.leap) * time.Second
		k.leap = 0
	}
}

func nextDay(wall time.Duration) time.Duration {
	const day = 24 * time.Hour
	return wall - wall%day + day
}

// True gives the true time. After a leap second it is what UTC shows.
func (w *World) True() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.utc()
}

func (w *World) utc() time.Time {
	now := time.Now()
	if !w.leapAt.IsZero() && !now.Before(w.leapAt) {
		now = now.Add(-w.leapBy)
	}
	return now.UTC()
}

// LeapAt makes a leap second at a time: UTC repeats a second (by is a second)
// or leaves one out. Servers tell of it by their Leap.
func (w *World) LeapAt(at time.Time, by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leapAt, w.leapBy = at, by
}

// Now reads the clocks of the gateway.
func (w *World) Now() sys.Instant {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance()
	return sys.Instant{
		Wall: time.Unix(0, int64(w.kernel.wall)).UTC(), Mono: w.kernel.mono + w.slept, Raw: w.kernel.raw - w.bootRaw, Suspended: w.slept,
	}
}

// Discipline is what the kernel knows.
func (w *World) Discipline() (sys.Discipline, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance()
	k := &w.kernel
	return sys.Discipline{
		Synchronised: k.sync && k.max < 16*time.Second, MaxError: k.max, Frequency: k.freq, Slewing: k.slew, Leap: k.leap,
	}, nil
}

var errForbidden = errors.New("operation not permitted")

func (w *World) set(f func(k *kernel)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cfg.Forbidden {
		return errForbidden
	}
	w.advance()
	f(&w.kernel)
	return nil
}

// Step sets the clock.
func (w *World) Step(by time.Duration) error {
	return w.set(func(k *kernel) { k.wall, k.slew = k.wall+by, 0; w.steps++ })
}

// Slew corrects the clock at 500 ppm.
func (w *World) Slew(by time.Duration) error { return w.set(func(k *kernel) { k.slew = by }) }

// SetFrequency makes the clock faster.
func (w *World) SetFrequency(f float64) error {
	return w.set(func(k *kernel) { k.freq = min(max(f, -slewRate), slewRate) })
}

// Vouch says how good the clock is.
func (w *World) Vouch(synchronised bool, maxError time.Duration, leap int) error {
	return w.set(func(k *kernel) { k.sync, k.max, k.leap = synchronised, maxError, leap })
}

// Meddle sets the system clock as somebody else would, whatever is forbidden.
func (w *World) Meddle(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance()
	w.kernel.wall += by
}

// Discipliner makes the kernel say that somebody keeps its clock within so
// much.
func (w *World) Discipliner(within time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance()
	w.kernel.sync, w.kernel.max = true, within
}

// Suspend says that the system slept for the last so much of time: its
// monotonic clock goes on, its oscillator stood still.
func (w *World) Suspend(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance()
	w.slept += d
	w.kernel.raw -= d
	w.kernel.mono -= d
}

// Reboot boots the gateway anew: its monotonic clocks begin at 0, and its wall
// clock with what the hardware clock shows, or in 1970. It gives the number of
// the boot.
func (w *World) Reboot() uint32 {
	at := time.Unix(0, 0)
	if t, err := w.RTC().Read(); err == nil {
		at = t
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reboot(at)
}

func (w *World) reboot(wall time.Time) uint32 {
	w.boot++
	w.slept = 0
	w.kernel = kernel{raw: w.oscillator(), wall: time.Duration(wall.UnixNano()), max: 16 * time.Second}
	w.bootRaw = w.kernel.raw
	return w.boot
}

// Boot gives the number of the running boot.
func (w *World) Boot() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.boot
}

// Steps counts the steps by the program under test.
func (w *World) Steps() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.steps
}

// RTC gives the hardware clock, which may be none.
func (w *World) RTC() RTC { return RTC{w} }

// RTC is the hardware clock of a World.
type RTC struct{ w *World }

// Read gives its time.
func (r RTC) Read() (time.Time, error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if !r.w.cfg.HasRTC {
		return time.Time{}, errors.New("no hardware clock")
	}
	since := time.Since(r.w.rtcSet)
	return r.w.rtcBase.Add(since + time.Duration(r.w.cfg.RTCDrift*float64(since))).Truncate(time.Second).UTC(), nil
}

// Set sets it.
func (r RTC) Set(t time.Time) error {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if !r.w.cfg.HasRTC {
		return errors.New("no hardware clock")
	}
	r.w.rtcBase, r.w.rtcSet = t.Round(time.Second), time.Now()
	return nil
}

// SetLink says whether the network is up.
func (w *World) SetLink(up bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.link = up
}

// SetServer changes a server; i is its place.
func (w *World) SetServer(i int, change func(s *Server)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.cfg.Servers[i])
}

// Servers gives the servers as a Clock is configured with them.
func (w *World) Servers() (list []timesync.Server) {
	for _, s := range w.cfg.Servers {
		list = append(list, timesync.Server{Address: s.Name})
	}
	return list
}

var errSilence = errors.New("no answer")

// Exchange asks a server of the world; it is a timesync.Exchange.
func (w *World) Exchange(ctx context.Context, r timesync.Request) (timesync.Sample, error) {
	s, there, back, ok := w.path(r.Server.Address)
	sent := r.Now()
	if !ok {
		<-ctx.Done() // like a packet that is lost
		return timesync.Sample{}, errSilence
	}
	if !pass(ctx, there) {
		return timesync.Sample{}, errSilence
	}
	server := w.True().Add(s.Off)
	if !pass(ctx, back) {
		return timesync.Sample{}, errSilence
	}
	received := r.Now()
	switch {
	case s.Kiss != "":
		return timesync.Sample{}, &timesync.Kiss{Code: s.Kiss}
	case s.Unsynchronised:
		return timesync.Sample{}, timesync.ErrNotSynchronised
	}
	trip := received.Sub(sent)
	return timesync.Sample{
		Offset: server.Sub(sent.Add(trip / 2)), Trip: trip, Dispersion: s.Claim, Stratum: 2, Leap: s.Leap, Address: "203.0.113.1:123/" + s.Name,
	}, nil
}

// path gives a server, and how long packets take there and back.
func (w *World) path(name string) (s Server, there, back time.Duration, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.cfg.Servers {
		if s.Name != name {
			continue
		}
		there = s.Trip/2 + time.Duration(w.random.Float64()*float64(s.Jitter))
		back = s.Trip/2 + time.Duration(w.random.Float64()*float64(s.Jitter))
		return s, there, back, w.link && !s.Down && w.random.Float64() >= s.Lost
	}
	return Server{}, 0, 0, false
}

// pass lets time pass.
func pass(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
