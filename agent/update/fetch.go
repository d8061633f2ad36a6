package update

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"gridgate/internal/backoff"
	"gridgate/internal/sys"
)

// How firmware is fetched.
const (
	maxBatch   = 256 << 10 // octets that a source is asked for at once
	shortBatch = 15 * time.Second
	longBatch  = time.Minute
	maxBad     = 3                // times that a part may come with wrong octets
	firstPause = 10 * time.Second // a pause is at least half of it
	lastPause  = time.Hour
)

// Why an update does not get on.
var (
	// ErrBroken says that what the source has is not what the document says.
	// Asking again does not help.
	ErrBroken = errors.New("not what the document says")
	// ErrBudget is what Options.Tell is told while Options.May holds it back.
	ErrBudget = errors.New("waits for the traffic budget")
	// ErrDamaged says that what had been fetched is damaged on the disk: Fetch
	// fetches it again.
	ErrDamaged = errors.New("damaged on the disk")
)

// Want is what a source is asked for: a part of an object, or the index of one.
type Want struct {
	Name   string   // of the file that it is for, to tell people
	Sum    [32]byte // its SHA-256
	Size   int64    // octets
	Object [32]byte // that it is a part of; of an index: Sum
	Offset int64    // in the object
	Whole  int64    // octets of the object
}

// Source is where objects come from.
type Source interface {
	// Fetch asks for all of these, which have MaxPart octets at most each, and
	// gives what comes to take, in any order, each once. It returns when all have
	// come, with nil, or with an error that says why not; whoever has no answer
	// for long gives up and says so. take checks what it is given, keeps nothing
	// of data, and is called from one goroutine at a time and not after Fetch has
	// returned.
	Fetch(ctx context.Context, wants []Want, take func(w Want, data []byte)) error
}

// Options say how fast firmware is fetched, and who is told. The zero value is
// as fast as it comes.
type Options struct {
	Rate int64 // octets a second, at most, on average; 0: no bound
	// May says how long to wait before n octets are asked for: 0 is now, and then
	// they are. It is asked again after the wait.
	May func(n int64) time.Duration
	// Tell is told why it does not get on, and for how long nothing is tried; nil
	// when it gets on again. Took is called for each part that is there.
	Tell func(why error, pause time.Duration)
	Took func()
}

// progress is how far a Job is.
type progress struct {
	need int64
	have atomic.Int64
}

// Progress gives how many octets of the objects are there, and how many have to
// be. It is safe for concurrent use.
func (p *progress) Progress() (have, need int64) { return p.have.Load(), p.need }

// fetcher is a run of Job.Fetch.
type fetcher struct {
	*Job
	Options
	bad     map[[32]byte]int // times that a part came with wrong octets
	dirty   map[string]int64 // octets of files that are not synced
	free    time.Time        // when the rate permits the next batch
	batch   int64            // octets
	waiting bool
}

// Fetch fetches what is missing until all of it is there or ctx ends. A source
// that fails is asked again, after pauses of 5 s to 1 h. Other errors than
// ctx's wrap ErrBroken.
func (j *Job) Fetch(ctx context.Context, from Source, o Options) error {
	f := &fetcher{Job: j, Options: o, bad: map[[32]byte]int{}, dirty: map[string]int64{}, batch: MinPart}
	pauses := backoff.Backoff{Min: firstPause, Max: lastPause}
	for {
		wants, octets := f.next()
		if len(wants) == 0 {
			if err := f.sync(); err == nil {
				return nil
			} else if err := f.pause(ctx, err, pauses.Next()); err != nil {
				return err
			}
			continue
		}
		if err := f.turn(ctx, octets); err != nil {
			return errors.Join(err, f.sync())
		}
		got, err := f.ask(ctx, from, wants)
		if got > 0 {
			pauses.Reset()
		}
		switch {
		case ctx.Err() != nil:
			return errors.Join(ctx.Err(), f.sync())
		case errors.Is(err, ErrBroken):
			return errors.Join(err, f.sync())
		case err != nil:
			if err := f.pause(ctx, errors.Join(err, f.sync()), pauses.Next()); err != nil {
				return err
			}
		}
	}
}

// next gives what is asked for next: indexes first, then parts of one object.
func (f *fetcher) next() (wants []Want, octets int64) {
	for _, o := range f.objects {
		if o.index == nil {
			n := int64(len(o.there) * 32)
			return []Want{{Name: o.file.Name, Sum: o.file.Index, Size: n, Object: o.file.Index, Whole: n}}, n
		}
	}
	for _, o := range f.objects {
		for i, there := range o.there {
			if n := o.size(i); !there {
				if octets > 0 && octets+n > f.batch {
					return wants, octets
				}
				wants = append(wants, Want{Name: o.file.Name, Sum: o.sum(i), Size: n, Object: o.file.Object, Offset: int64(i) * o.file.Part, Whole: o.file.Packed})
				octets += n
			}
		}
		if octets > 0 {
			break
		}
	}
	return wants, octets
}

// turn waits until n octets may be asked for.
func (f *fetcher) turn(ctx context.Context, n int64) error {
	if f.Rate > 0 {
		if err := wait(ctx, time.Until(f.free)); err != nil {
			return err
		}
		f.free = time.Now().Add(time.Duration(float64(n) / float64(f.Rate) * float64(time.Second)))
	}
	for f.May != nil {
		d := f.May(n)
		if d <= 0 {
			break
		}
		if err := f.pause(ctx, errors.Join(ErrBudget, f.sync()), d); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// ask asks for a batch, and gives how much of it came.
func (f *fetcher) ask(ctx context.Context, from Source, wants []Want) (got int, err error) {
	begun := time.Now()
	var broken, last error
	err = from.Fetch(ctx, wants, func(w Want, data []byte) {
		switch is, err := f.take(ctx, w, data); {
		case err != nil:
			last = err
		case is:
			got++
		default:
			if f.bad[w.Sum]++; f.bad[w.Sum] >= maxBad {
				broken = fmt.Errorf("%w: %s: the part with the SHA-256 %x came with another one %d times", ErrBroken, w.Name, w.Sum, maxBad)
			}
			last = fmt.Errorf("%s: the part with the SHA-256 %x came with another one", w.Name, w.Sum)
		}
	})
	switch err = errors.Join(err, last); {
	case broken != nil:
		return got, broken
	case err == nil && got < len(wants):
		err = fmt.Errorf("%s: %d of %d parts came", wants[0].Name, got, len(wants))
	}
	switch took := time.Since(begun); {
	case err != nil || took > longBatch:
		f.batch = max(f.batch/2, MinPart)
	case took < shortBatch:
		f.batch = min(max(f.batch, wants[0].Size)*2, maxBatch)
	}
	if f.Rate > 0 {
		f.batch = min(f.batch, f.Rate*int64(shortBatch/time.Second))
	}
	if got > 0 && f.waiting {
		f.waiting = false
		if f.Tell != nil {
			f.Tell(nil, 0)
		}
	}
	return got, err
}

// take writes what came, when it is what was asked for.
func (f *fetcher) take(ctx context.Context, w Want, data []byte) (is bool, err error) {
	if int64(len(data)) != w.Size || sha256.Sum256(data) != w.Sum {
		return false, nil
	}
	for _, o := range f.objects {
		switch {
		case o.file.Index == w.Sum && w.Object == w.Sum && o.index == nil:
			if err := f.store.forget(o.file.Index, w.Size); err != nil {
				return false, err
			}
			if err := f.put(w.Sum, 0, data); err != nil {
				return false, err
			}
			if err := f.store.load(ctx, o); err != nil {
				return false, err
			}
			if o.index == nil {
				return false, fmt.Errorf("%s: what is written does not read as it was: %w", w.Name, ErrDamaged)
			}
			f.have.Add(o.have())
		case o.file.Object == w.Object && o.index != nil:
			part := int(w.Offset / o.file.Part)
			if o.there[part] {
				continue
			}
			if err := f.put(w.Object, w.Offset, data); err != nil {
				return false, err
			}
			o.there[part] = true
			f.have.Add(w.Size)
		default:
			continue
		}
		if f.Took != nil {
			f.Took()
		}
	}
	return true, nil
}

// put writes data to an object's file.
func (f *fetcher) put(sum [32]byte, at int64, data []byte) error {
	path := f.store.object(sum)
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = to.WriteAt(data, at)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	if f.dirty[path] += int64(len(data)); f.dirty[path] >= maxBatch {
		return f.sync()
	}
	return nil
}

// sync has what came on the disk.
func (f *fetcher) sync() error {
	for path := range f.dirty {
		to, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(to.Sync(), to.Close(), sys.SyncDir(filepath.Dir(path))); err != nil {
			return err
		}
		delete(f.dirty, path)
	}
	return nil
}

// pause tells why nothing is tried for a while, and waits.
func (f *fetcher) pause(ctx context.Context, why error, d time.Duration) error {
	if f.waiting = true; f.Tell != nil {
		f.Tell(why, d)
	}
	return wait(ctx, d)
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
