package agent

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"gridgate/agent/order"
	"gridgate/agent/uplink"
)

// incoming is a document that waits to be dealt with.
type incoming struct {
	data []byte
	via  string // "mqtt" or "local"
	// topic is what it came on; a later one on the same takes its place.
	topic    string
	retained bool // the broker gives it again at each connection
	tooLong  bool // data are its beginning
	// carry, where it is not nil, is what to do: the document was judged before.
	carry func(context.Context)
	// verdict, where it is not nil, is told whether the document is taken.
	verdict chan error
}

// mailbox holds documents until their turn comes: a trial before them may take
// a quarter of an hour.
type mailbox struct {
	kick chan struct{}

	mu      sync.Mutex
	waiting []*incoming
}

// maxOrders wait; the oldest gives way.
const maxOrders = 8

func newMailbox() *mailbox { return &mailbox{kick: make(chan struct{}, 1)} }

// put adds a document; lost is one that found no room.
func (b *mailbox) put(in *incoming) (lost *incoming) {
	b.mu.Lock()
	b.waiting = slices.DeleteFunc(b.waiting, func(o *incoming) bool { return in.topic != "" && o.topic == in.topic })
	if len(b.waiting) == maxOrders {
		lost, b.waiting = b.waiting[0], b.waiting[1:]
	}
	b.waiting = append(b.waiting, in)
	b.mu.Unlock()
	select {
	case b.kick <- struct{}{}:
	default:
	}
	return lost
}

// next takes the oldest out; nil: there is none.
func (b *mailbox) next() *incoming { return b.first(func(*incoming) bool { return true }) }

// first takes the oldest out that is as wanted; nil: there is none.
func (b *mailbox) first(want func(*incoming) bool) *incoming {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.waiting, want)
	if i < 0 {
		return nil
	}
	in := b.waiting[i]
	b.waiting = slices.Delete(b.waiting, i, i+1)
	return in
}

// withdraw takes a document out; ok is false when its turn has come.
func (b *mailbox) withdraw(in *incoming) (ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.waiting)
	b.waiting = slices.DeleteFunc(b.waiting, func(o *incoming) bool { return o == in })
	return len(b.waiting) < n
}

// take is given what comes over MQTT.
func (o *orders) take(d uplink.Order) {
	if d.Name == string(order.KindCommand) {
		o.a.commands.take(d)
		return
	}
	data := d.Payload
	if len(data) > order.MaxSize+1 {
		data = slices.Clone(data[:order.MaxSize+1]) // it is refused as too large all the same
	}
	in := &incoming{data: data, via: "mqtt", topic: d.Name + "/" + string(d.Group), retained: d.Retained, tooLong: d.TooLong}
	if lost := o.in.put(in); lost != nil {
		o.a.log.Warn("too many orders at once: the oldest is dropped", "topic", lost.topic)
		answer(lost, errBusy)
	}
}

func answer(in *incoming, err error) {
	if in.verdict != nil {
		in.verdict <- err // there is room for the one
	}
}

// refusals remembers what was refused lately: a retained document that is
// refused comes again with every connection, and is worth one entry on flash.
type refusals struct {
	told []([sha256.Size]byte)
	hour time.Time
	n    int
}

const (
	refusalsKept    = 64
	refusalsPerHour = 30 // that are written down
)

// first says whether a document was not refused for that reason lately.
func (r *refusals) first(data []byte, why error) bool {
	h := sha256.New()
	h.Write(data)
	h.Write([]byte(why.Error()))
	sum := [sha256.Size]byte(h.Sum(nil))
	if slices.Contains(r.told, sum) {
		return false
	}
	if len(r.told) == refusalsKept {
		r.told = r.told[1:]
	}
	r.told = append(r.told, sum)
	return true
}

// mayWrite says whether one more may be written down within this hour; last
// that it is the last one.
func (r *refusals) mayWrite(now time.Time) (may, last bool) {
	if now.Sub(r.hour) >= time.Hour {
		r.hour, r.n = now, 0
	}
	r.n++
	return r.n <= refusalsPerHour, r.n == refusalsPerHour
}

// lookAgain is how often it is tried whether what waits for something else than
// its turn can be dealt with: for the time to be known, for a disk.
const lookAgain = 5 * time.Second

// run deals with documents until ctx ends.
func (o *orders) run(ctx context.Context) error {
	var exporting sync.WaitGroup
	defer exporting.Wait()
	exporting.Go(func() { o.exporting(ctx) })
	o.turn.Lock()
	if o.isOpen() {
		o.resume(ctx)
		o.a.updates.resume(ctx)
	}
	o.turn.Unlock()
	o.publish()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		for ctx.Err() == nil { // what is taken out is dealt with: somebody may wait for that
			in := o.in.next()
			if in == nil {
				break
			}
			o.deal(ctx, in)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-o.in.kick:
		case <-tick.C:
			o.again(ctx)
		}
	}
}

// again opens what could not be opened, and deals with what waits.
func (o *orders) again(ctx context.Context) {
	if !o.isOpen() {
		if o.a.state.Held() != nil || o.open() != nil {
			return
		}
		o.a.mu.Lock()
		o.a.forget(noOrders)
		o.a.mu.Unlock()
		o.a.log.Info("orders are taken again")
		o.turn.Lock()
		o.resume(ctx)
		o.a.updates.resume(ctx)
		o.turn.Unlock()
		o.publish()
	} else if !o.trusted() {
		return
	}
	waited := o.waiting
	o.waiting = nil
	for _, in := range waited {
		o.deal(ctx, in)
	}
}

// wait puts a document aside until it can be dealt with.
func (o *orders) wait(in *incoming) {
	in = &incoming{data: in.data, via: in.via, topic: in.topic, retained: in.retained} // who submitted it was told
	o.waiting = slices.DeleteFunc(o.waiting, func(w *incoming) bool { return in.topic != "" && w.topic == in.topic })
	if len(o.waiting) == maxOrders {
		o.waiting = o.waiting[1:]
	}
	o.waiting = append(o.waiting, in)
}
