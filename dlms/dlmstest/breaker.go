package dlmstest

import (
	"sync"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// Breaker is a disconnect control (class 70) in one of the control modes of IEC
// 62056-6-2, 4.5.8:
//
//	          opened                      closed
//	1         remote, manual, local       remote makes ready, then manual
//	2         remote, manual, local       remote; manual where it is ready
//	3         remote, local               as 1
//	4         remote, local               as 2
//	5         remote, manual, local       as 1, or local
//	6         remote, local               as 1, or local
//
// It is safe for concurrent use.
type Breaker struct {
	mu          sync.Mutex
	output      bool
	state, mode byte
	stuck       bool
	changed     func(on bool)
	calls       [2]int
}

// NewBreaker gives a breaker that is connected. changed, if not nil, is told the
// output state when it changes.
func NewBreaker(mode byte, changed func(on bool)) *Breaker {
	return &Breaker{output: true, state: connected, mode: mode, changed: changed}
}

// Calls says how often remote_disconnect and remote_reconnect were run.
func (b *Breaker) Calls() (disconnect, reconnect int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls[0], b.calls[1]
}

// State gives output state and control state.
func (b *Breaker) State() (output bool, state byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.output, b.state
}

// Stick has the contacts stay as they are, whatever is ordered.
func (b *Breaker) Stick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stuck = true
}

// Trip opens it locally, by a limiter or a fault, and OpenByHand by its button,
// in the modes that have that.
func (b *Breaker) Trip() { b.open(b.mode != 0) }

// OpenByHand opens it by its button.
func (b *Breaker) OpenByHand() { b.open(b.mode == 1 || b.mode == 2 || b.mode == 5) }

func (b *Breaker) open(may bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if may && b.state == connected {
		b.move(false, readyToClose)
	}
}

// Close closes it by its button, if it is ready for that.
func (b *Breaker) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == readyToClose {
		b.move(true, connected)
	}
}

func (b *Breaker) move(output bool, state byte) {
	if b.stuck {
		return
	}
	before := b.output
	if b.output, b.state = output, state; output != before && b.changed != nil {
		b.changed(output)
	}
}

// Object gives the object.
func (b *Breaker) Object(code obis.Code) Object {
	return Object{
		Class: 70, Code: code, Attributes: []int8{2, 3, 4}, Settable: []int8{4}, Methods: []int8{1, 2},
		Read: b.read, Write: b.write, Act: b.act,
	}
}

func (b *Breaker) read(id int8, rows *Selection) (axdr.Value, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case rows != nil:
	case id == 2:
		return axdr.Boolean(b.output), true
	case id == 3:
		return axdr.Enum(b.state), true
	case id == 4:
		return axdr.Enum(b.mode), true
	}
	return axdr.Value{}, false
}

func (b *Breaker) write(id int8, v axdr.Value) Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case id != 4:
		return ReadWriteDenied
	case v.Tag != axdr.TagEnum || v.Num > 6:
		return TypeUnmatched
	}
	b.mode = byte(v.Num)
	return Success
}

func (b *Breaker) act(id int8, _ axdr.Value) (axdr.Value, Result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mode == 0 || id != 1 && id != 2 {
		return axdr.Value{}, ReadWriteDenied
	}
	b.calls[id-1]++
	switch {
	case id == 1:
		b.move(false, disconnected)
	case b.state != disconnected:
	case b.mode == 2 || b.mode == 4:
		b.move(true, connected)
	default:
		b.move(false, readyToClose) // the customer's button does the rest
	}
	return axdr.Value{}, Success
}
