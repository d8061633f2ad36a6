package plc

import (
	"context"
	"errors"
	"hash/fnv"
	"time"

	"gridgate/internal/meter"
)

// Quality is what a meter says of its place in the network; zero values were
// not told. It is of the PRIME classes 81, 83 and 84, or of the G3 classes 90
// and 91 (IEC 62056-6-2, 4.8 and 4.9).
type Quality struct {
	At       time.Time // it was read
	Level    uint64    // PRIME: switches between the base node and it
	Sent     uint64    // data packets
	Received uint64    // data packets
	Failed   uint64    // G3: sent and not acknowledged; PRIME: not sent, the channel was busy
	Damaged  uint64    // received with a wrong checksum
}

// IsZero says whether nothing is known.
func (q Quality) IsZero() bool { return q.At.IsZero() }

// figure is an attribute that goes into a Quality.
type figure struct {
	channel meter.Channel
	of      func(*Quality) *uint64
}

func level(q *Quality) *uint64    { return &q.Level }
func sent(q *Quality) *uint64     { return &q.Sent }
func received(q *Quality) *uint64 { return &q.Received }
func failed(q *Quality) *uint64   { return &q.Failed }
func damaged(q *Quality) *uint64  { return &q.Damaged }

func figures(k Kind) []figure {
	switch k {
	case Prime:
		return []figure{
			{"0-0:28.3.0*255/83:8", level},
			{"0-0:28.4.0*255/84:2", sent},
			{"0-0:28.4.0*255/84:3", received},
			{"0-0:28.4.0*255/84:6", failed},
			{"0-0:28.1.0*255/81:2", damaged},
		}
	case G3:
		return []figure{
			{"0-0:29.0.0*255/90:2", sent},
			{"0-0:29.0.0*255/90:3", received},
			{"0-0:29.0.0*255/90:7", failed},
			{"0-0:29.0.0*255/90:8", damaged},
		}
	case Gateway:
	}
	return nil
}

const (
	qualityEvery = 24 * time.Hour
	// qualityVain is how long a meter is not asked again that has no such classes.
	qualityVain = 7 * qualityEvery
)

// observer asks a meter of its place in the network, once a day, behind a visit
// that went well.
type observer struct {
	meter.Visitor
	node *Node
	due  time.Time
}

// Observe gives v, a meter behind n, which is asked of its place in the network
// too, where the kind of network has classes for that: one more exchange a day,
// for which nothing fails.
func Observe(v meter.Visitor, n *Node) meter.Visitor {
	if len(figures(n.bridge.cfg.Kind)) == 0 {
		return v
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(n.name)) // a hash takes all
	// Spread over the day, and not in the first hour, in which there is enough to do.
	return &observer{Visitor: v, node: n, due: time.Now().Add(time.Hour + qualityEvery>>16*time.Duration(h.Sum32()>>16))}
}

// Visit visits the meter.
func (o *observer) Visit(ctx context.Context, ask meter.Ask) (meter.Got, error) {
	got, err := o.Visitor.Visit(ctx, ask)
	if err != nil || ctx.Err() != nil || time.Now().Before(o.due) {
		return got, err
	}
	var channels []meter.Channel
	all := figures(o.node.bridge.cfg.Kind)
	for _, f := range all {
		channels = append(channels, f.channel)
	}
	extra, err := o.Visitor.Visit(ctx, meter.Ask{Groups: []meter.Group{{Name: "plc", Lane: meter.Instant, Channels: channels}}})
	switch {
	case errors.Is(err, meter.ErrAuthentication):
		return got, err // who counts refusals counts this one
	case err != nil:
		o.due = time.Now().Add(qualityEvery) // it may have cost time-outs
		return got, nil                      //nolint:nilerr // what was asked for was read
	}
	q := Quality{At: time.Now()}
	o.due = q.At.Add(qualityVain)
	for i := range extra.Rows {
		for _, f := range all {
			if r := &extra.Rows[i]; r.Channel == f.channel && r.Value.Kind == meter.Uint {
				*f.of(&q) = r.Value.Bits
				o.due = q.At.Add(qualityEvery)
			}
		}
	}
	if len(extra.Rows) > 0 {
		o.node.bridge.mu.Lock()
		o.node.quality = q
		o.node.bridge.mu.Unlock()
	}
	return got, nil
}
