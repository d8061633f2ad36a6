package track

import (
	"encoding/json"
	"errors"
	"fmt"

	"gridgate/agent/batch"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// The bounds of what waits for its catalogue. The oldest gives way.
const (
	maxWaiting      = 10_000
	maxWaitingBytes = 64 << 20
)

// Receiver takes the messages of gateways as they come, keeps catalogues by
// their hash, and lets batches wait whose catalogue has not come yet. Make one
// with NewReceiver. It is not safe for concurrent use.
type Receiver struct {
	Tracker *Tracker
	// Each, when not nil, is called with each batch that could be decoded, also
	// one that came twice. The span is valid until it returns.
	Each       func(batch.Header, batch.Span)
	decoders   batch.Decoders
	catalogues *shelf
	asks       map[Stream]set  // numbers that came in deltas against rows that are not known here
	lost       map[Stream]bool // the latest batch was such a delta
	waiting    []waiting
	bytes      int
	online     map[[2]string]bool
}

type waiting struct {
	topic   mqtt.Topic
	hash    batch.Hash
	payload []byte
}

// NewReceiver gives a receiver that counts with t.
func NewReceiver(t *Tracker) *Receiver {
	return &Receiver{Tracker: t, catalogues: newShelf(maxCatalogues, maxCatalogueBytes), asks: map[Stream]set{}, lost: map[Stream]bool{}, online: map[[2]string]bool{}}
}

// Take takes a message, and gives the rows that are new by it: its own, or those
// that waited for the catalogue in it. Its errors are for the log: the message
// could not be read, or contradicts an earlier one; the receiver goes on.
func (r *Receiver) Take(name string, payload []byte) ([]Reading, error) {
	topic, err := mqtt.ParseTopic(name)
	if errors.Is(err, mqtt.ErrForeignTopic) {
		return nil, nil
	}
	if err != nil {
		r.Tracker.Undecoded()
		return nil, err
	}
	if len(payload) == 0 {
		return nil, nil // a retained message was taken back
	}
	var fresh []Reading
	switch topic.Kind {
	case mqtt.Catalogue:
		fresh, err = r.catalogue(topic.Hash, payload)
	case mqtt.Readings:
		fresh, err = r.batch(topic, payload)
	case mqtt.State:
		r.state(string(topic.Site), string(topic.Gateway), payload)
	case mqtt.Acknowledgement:
		err = r.confirmation(topic, payload)
	default:
	}
	if err != nil {
		err = fmt.Errorf("topic %s: %w", name, err)
	}
	return fresh, err
}

func (r *Receiver) catalogue(hash batch.Hash, payload []byte) ([]Reading, error) {
	c, err := batch.ParseCatalogue(payload)
	if err == nil && c.Hash() != hash {
		err = fmt.Errorf("catalogue is %s", c.Hash())
	}
	if err != nil {
		r.Tracker.Undecoded()
		return nil, err
	}
	r.catalogues.put(c, len(payload))
	var fresh []Reading
	var errs []error
	all := r.waiting
	r.waiting, r.bytes = nil, 0
	for _, w := range all {
		if w.hash != hash {
			r.wait(w)
			continue
		}
		f, err := r.batch(w.topic, w.payload)
		fresh, errs = append(fresh, f...), append(errs, err)
	}
	return fresh, errors.Join(errs...)
}

func (r *Receiver) batch(topic mqtt.Topic, payload []byte) ([]Reading, error) {
	// Before it is decoded: it must not disturb the stream whose name it has.
	if h, err := batch.ParseHeader(payload); err == nil && (h.Site != string(topic.Site) || h.Gateway != string(topic.Gateway) || h.Lane != topic.Lane) {
		r.Tracker.Undecoded()
		return nil, fmt.Errorf("a batch of %s/%s, lane %s, under another name", h.Site, h.Gateway, h.Lane)
	}
	h, span, err := r.decoders.Parse(payload, r.catalogues.get)
	var unknown *batch.UnknownCatalogueError
	if errors.As(err, &unknown) {
		r.wait(waiting{topic, unknown.Hash, append([]byte(nil), payload...)})
		return nil, nil
	}
	var base *batch.UnknownBaseError
	if errors.As(err, &base) {
		return nil, r.lacks(h, span, err)
	}
	if err != nil {
		r.Tracker.Undecoded()
		return nil, err
	}
	delete(r.lost, Stream{h.Site, h.Gateway, h.Epoch, h.Lane})
	if r.Each != nil {
		r.Each(h, span)
	}
	fresh, conflicts := r.Tracker.Add(h, span)
	var errs []error
	for _, c := range conflicts {
		errs = append(errs, fmt.Errorf("lane %s: number %d came before with another row than %s", c.Lane, c.Sequence, c.Row.AppendJSON(nil)))
	}
	return fresh, errors.Join(errs...)
}

// Know takes a catalogue that came from elsewhere.
func (r *Receiver) Know(c *batch.Catalogue) {
	b, _ := c.AppendBinary(nil) // too long for a message is too long for the shelf
	r.catalogues.put(c, len(b))
}

func (r *Receiver) wait(w waiting) {
	for len(r.waiting) > 0 && (len(r.waiting) >= maxWaiting || r.bytes+len(w.payload) > maxWaitingBytes) {
		r.bytes -= len(r.waiting[0].payload)
		r.waiting = r.waiting[1:]
		r.Tracker.Undecoded()
	}
	r.waiting, r.bytes = append(r.waiting, w), r.bytes+len(w.payload)
}

func (r *Receiver) state(site, gateway string, payload []byte) {
	var s struct{ State string }
	if json.Unmarshal(payload, &s) == nil {
		r.online[[2]string{site, gateway}] = s.State == "online"
	}
}

// Waiting gives how many batches wait for a catalogue.
func (r *Receiver) Waiting() int { return len(r.waiting) }

// Online gives how many gateways say that they are online.
func (r *Receiver) Online() (n int) {
	for _, on := range r.online {
		if on {
			n++
		}
	}
	return n
}

// Summary is the tracker's, with what still waits counted as undecoded.
func (r *Receiver) Summary() Summary {
	s := r.Tracker.Summary()
	s.Undecoded += uint64(len(r.waiting))
	return s
}
func epochText(epoch uint64) string { return fmt.Sprintf("%016x", epoch) }

// AppendJSON appends the reading as a JSON object: the row's fields, then
// "lane", "sequence", "site" and "gateway".
func (r Reading) AppendJSON(b []byte) []byte {
	b = r.Row.AppendJSONFields(append(b, '{'))
	b = fmt.Appendf(b, `,"lane":"%s","sequence":%d,"site":`, r.Lane, r.Sequence)
	b = append(meter.AppendJSONString(b, r.Site), `,"gateway":`...)
	return append(meter.AppendJSONString(b, r.Gateway), '}')
}
