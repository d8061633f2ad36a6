package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"gridgate/buffer"
	"gridgate/configs"
	"gridgate/internal/meter"
)

// readings is the store as the stages see it: the same one over the agent's
// life, though the buffer behind it is closed and opened anew when it turns
// out to be damaged. While it is closed every call fails, and the callers try
// again: rows wait in the intake.
type readings struct {
	dir     string
	options buffer.Options
	damaged chan struct{} // has a token when the buffer has to be opened anew
	hurt    chan struct{} // has a token when a chunk is damaged

	taken func(rows []meter.Row) // is told what was stored

	mu    sync.RWMutex
	store *buffer.Store
	first bool // the first opening that went well is over
	old   bool // it found rows, or that there had been some
}

// take makes s the store.
func (r *readings) take(s *buffer.Store) {
	old := !r.first && hasRows(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.store = s; !r.first && s.Epoch() != 0 {
		r.first, r.old = true, old
	}
}

// wasUsed says whether rows had ever been stored when the buffer was opened, so
// that this is no first start.
func (r *readings) wasUsed() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.old
}

func hasRows(s *buffer.Store) bool {
	st, err := s.Stat()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(st.Lanes, func(l buffer.LaneStat) bool { return l.Rows > 0 || l.Acked > 0 })
}

// openReadings opens the buffer. With an error it gives one that is not open.
func openReadings(cfg *configs.Config, o buffer.Options) (*readings, error) {
	r := &readings{dir: cfg.Buffer.Path, options: o, damaged: make(chan struct{}, 1), hurt: make(chan struct{}, 1)}
	r.options.Report = damageReport(cfg.Gateway)
	s, err := buffer.Open(r.dir, r.options)
	if err != nil {
		s = buffer.NotOpen(r.dir, r.options, err)
	}
	r.take(s)
	return r, err
}

// bufferOptions gives what the configuration says of the buffer. What the fog
// has stays until its room is needed; the file may be larger than what is kept,
// since it is kept in pieces and what is new comes before what is old goes.
func bufferOptions(cfg *configs.Config, boot string) buffer.Options {
	limit := func(l configs.Limit) buffer.Limit { return buffer.Limit{Bytes: l.Size, Age: l.Age} }
	b := &cfg.Buffer
	o := buffer.Options{
		BootID: boot, Zone: cfg.TimeZone,
		MaxSize: b.All.Size + b.All.Size/4 + 4<<20, HotBytes: b.All.Size,
		Quota: buffer.Quota{Total: limit(b.All)},
	}
	for lane, l := range b.Lanes {
		o.Quota.Lanes[lane] = limit(l)
	}
	return o
}

func (r *readings) get() *buffer.Store {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.store
}

// look passes err on, and asks for the buffer to be opened anew if that is
// what err calls for.
func (r *readings) look(err error) error {
	if r.Epoch() != 0 && (errors.Is(err, buffer.ErrDamaged) || errors.Is(err, buffer.ErrClosed)) {
		select {
		case r.damaged <- struct{}{}:
		default:
		}
	}
	return err
}

// renew closes the buffer and opens it again, which moves a damaged file
// aside. Nobody may hold numbers of the old one: they mean other rows in a new
// epoch.
func (r *readings) renew() (*buffer.Recovery, error) {
	_ = r.get().Close() // it is damaged, and Open says so if it still is
	s, err := buffer.Open(r.dir, r.options)
	if err != nil {
		return nil, err
	}
	r.take(s)
	select {
	case <-r.damaged: // that was said of the old one
	default:
	}
	return s.Recovered(), nil
}

func (r *readings) Append(ctx context.Context, a meter.Append) error {
	s := r.get()
	boot := s.Boot() // rows that waited while the buffer began anew have its old number
	for i := range a.Rows {
		a.Rows[i].Stamp.Boot = boot
	}
	err := s.Append(ctx, a)
	if err == nil {
		r.taken(a.Rows)
	}
	return r.look(err)
}

func (r *readings) Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error) {
	c, ok, err := r.get().Cursor(id, serial, profile)
	return c, ok, r.look(err)
}

// Cache and SaveCache keep what meters say of their objects; see cosem.Caches.
// What cannot be read is as good as nothing.
func (r *readings) Cache(id meter.ID, serial string) []byte {
	b, err := r.get().Cache(id, serial)
	if r.look(err) != nil {
		return nil
	}
	return b
}

func (r *readings) SaveCache(id meter.ID, serial string, cache []byte) {
	r.get().SaveCache(id, serial, cache)
}

func (r *readings) Peek(lane meter.Lane, after uint64, maxRows int) (meter.Span, error) {
	s := r.get()
	if s.Epoch() == 0 {
		return meter.Span{Lane: lane}, nil // not open: there is nothing
	}
	span, err := s.Peek(lane, after, maxRows)
	if s.NeedsMending() {
		select {
		case r.hurt <- struct{}{}:
		default:
		}
	}
	return span, r.look(err)
}

func (r *readings) Catalogue() ([]byte, error) {
	b, err := r.get().Catalogue()
	return b, r.look(err)
}

func (r *readings) SaveCatalogue(ctx context.Context, b []byte) error {
	return r.look(r.get().SaveCatalogue(ctx, b))
}

func (r *readings) Ack(lane meter.Lane, through uint64) error {
	return r.look(r.get().Ack(lane, through))
}

func (r *readings) Flush(ctx context.Context) error { return r.look(r.get().Flush(ctx)) }

func (r *readings) Epoch() uint64                { return r.get().Epoch() }
func (r *readings) Boot() uint32                 { return r.get().Boot() }
func (r *readings) Last(lane meter.Lane) uint64  { return r.get().Last(lane) }
func (r *readings) Acked(lane meter.Lane) uint64 { return r.get().Acked(lane) }
func (r *readings) Close() error                 { return r.get().Close() }

// renewPause is the least time from one opening anew to the next.
const renewPause = time.Minute

// keepStore opens the buffer anew when it turns out to be damaged, and makes
// its file smaller on a quiet night.
func (a *Agent) keepStore(ctx context.Context) error {
	pause := time.NewTimer(renewPause)
	defer pause.Stop()
	between := reopenFirst
	again := time.NewTimer(between)
	defer again.Stop()
	if a.isAllOpen() {
		again.Stop()
	}
	var mended time.Time
	night := time.NewTicker(compactPause)
	defer night.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-night.C:
			a.compactStore(ctx, time.Now())
			continue
		case <-a.store.hurt:
			if now := time.Now(); a.mending.isDue(now.Sub(mended)) {
				a.intake.Mend(a.mend)
				mended = now
			}
			continue
		case <-again.C:
			if !a.reopen(ctx) {
				between = min(2*between, reopenMost)
				again.Reset(between)
			}
			continue
		case <-a.store.damaged:
		}
		a.renewStore(ctx)
		pause.Reset(renewPause)
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
	}
}

// compactPause is how often the agent looks whether the file is worth making
// smaller.
const compactPause = 20 * time.Minute

// compactStore makes the file smaller when over half of it is free, between two
// and four at night, when nothing waits to be sent.
func (a *Agent) compactStore(ctx context.Context, now time.Time) {
	a.mu.Lock()
	zone := a.cfg.TimeZone
	a.mu.Unlock()
	if hour := now.In(zone).Hour(); hour < 2 || hour > 3 {
		return
	}
	s := a.store.get()
	if s.Epoch() == 0 {
		return
	}
	for _, lane := range meter.Lanes() {
		if s.Acked(lane) < s.Last(lane) {
			return
		}
	}
	if !s.Wasteful() {
		return
	}
	if err := a.store.look(s.Compact(ctx)); err != nil {
		a.log.Warn("the buffer's file cannot be made smaller", "error", err)
		return
	}
	a.log.Info("the buffer's file was made smaller")
}

func (a *Agent) renewStore(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.running || a.lines == nil {
		return // starting: the next call asks again; stopping: the next start opens it anew
	}
	a.uplink.stop() // it knows numbers of the old epoch
	recovered, err := a.store.renew()
	a.startUplink(ctx, a.cfg)
	switch {
	case err != nil:
		a.log.Error("the buffer is damaged and cannot be opened anew; readings wait in memory", "error", err)
		a.note(fmt.Sprintf("buffer: damaged, and cannot be opened anew: %v", err))
	case recovered == nil:
		a.log.Warn("the buffer seemed damaged and was opened anew; nothing is lost")
	default:
		a.recovered(recovered)
	}
}

// maxNotes bounds the notes; the oldest goes first.
const maxNotes = 16

// note tells an operator something. mu is held, or nothing runs yet.
func (a *Agent) note(text string) {
	if slices.Contains(a.notes, text) {
		return
	}
	if a.notes = append(a.notes, text); len(a.notes) > maxNotes {
		a.notes = a.notes[1:]
	}
}
