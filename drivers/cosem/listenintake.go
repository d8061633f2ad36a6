package cosem

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"gridgate/dlms"
)

// maxBegun is how many senders on one connection may have blocks to come. Who
// concentrates meters sends the pushes of one after those of another.
const maxBegun = 2

// intake puts together what comes in pieces. It is of one goroutine.
type intake struct {
	*Receiver
	// oneWay says that no answer gets to the sender, so that what is lost stays
	// lost.
	oneWay bool
	// most is how many senders may have begun; 0 is maxSenders.
	most  int
	begun map[Sender]*blocks
}

// blocks are those of one sender, of which not all have come.
type blocks struct {
	dlms.Assembler
	first [sha256.Size]byte // of block 1
	last  uint16            // the last that came in order
	lost  bool              // what follows belongs to nothing
	at    time.Time
}

// Of general block transfer, where the octets of a block begin: see dlms.
const (
	tagGeneralBlock = 0xE0
	blockNumber     = 2
	blockOctets     = 6
	blockWindow     = 63 // as many in a row as there may be: memory is there
)

// take takes an APDU, and gives what is to be answered, once it is stored.
func (in *intake) take(from Sender, apdu []byte) (answers [][]byte) {
	answers, t := in.begin(from, apdu)
	if t != nil {
		answers = in.finish(t, answers)
	}
	return answers
}

// begin takes an APDU, and gives what is to be answered at once, and what is to
// be finished, or nil.
func (in *intake) begin(from Sender, apdu []byte) (answers [][]byte, t *taken) {
	whole, ack, err := in.whole(from, apdu)
	if err != nil {
		in.bad(from, err)
	}
	if ack != nil {
		answers = append(answers, ack)
	}
	if whole == nil {
		return answers, nil
	}
	t, answer, err := in.Receiver.take(from, whole)
	if err != nil {
		in.bad(from, err)
	}
	if answer != nil {
		answers = append(answers, answer)
	}
	return answers, t
}

// finish adds what is to be answered to what was handed on.
func (r *Receiver) finish(t *taken, answers [][]byte) [][]byte {
	answer, err := t.finish()
	if err != nil {
		r.bad(t.from, err)
	}
	if answer != nil {
		answers = append(answers, answer)
	}
	return answers
}

// whole gives the APDU when it is whole, and what acknowledges a block.
func (in *intake) whole(from Sender, apdu []byte) (whole, ack []byte, err error) {
	if len(apdu) > 0 && apdu[0] != tagGeneralBlock {
		return apdu, nil, nil
	}
	if len(apdu) <= blockOctets {
		return nil, nil, fmt.Errorf("%w: general block cut short: %x", dlms.ErrMalformed, apdu)
	}
	b := in.of(from)
	n, hasOctets := binary.BigEndian.Uint16(apdu[blockNumber:]), apdu[blockOctets] != 0
	switch {
	case !hasOctets:
	case n == 1:
		sum := sha256.Sum256(apdu[blockOctets:])
		if b.last > 1 || b.last == 1 && sum != b.first {
			err = b.cut()
		}
		b.first, b.lost = sum, false
	case b.lost:
		return nil, nil, nil
	case n > b.last+1 && (in.oneWay || b.last == 0):
		err := fmt.Errorf("a notification in blocks is %w: block %d is missing", ErrLost, b.last+1)
		b.forget()
		b.lost = true
		return nil, nil, err
	}
	whole, ack, aerr := b.Add(apdu)
	switch {
	case aerr != nil:
		b.forget()
		b.lost = true
		return nil, nil, aerr
	case whole != nil:
		delete(in.begun, from)
	case hasOctets && n == b.last+1:
		b.last = n
	}
	return whole, ack, err
}

// cut says that the blocks begun come to no end, and forgets them.
func (b *blocks) cut() error {
	err := fmt.Errorf("a notification in blocks is %w: it ends after block %d", ErrLost, b.last)
	b.forget()
	return err
}

func (b *blocks) forget() {
	b.Assembler, b.last = dlms.Assembler{Window: blockWindow, Max: maxPush}, 0
}

// of gives the blocks of a sender. When there is no room, the ones that nothing
// was added to for longest are given up.
func (in *intake) of(from Sender) *blocks {
	now := time.Now()
	if b := in.begun[from]; b != nil {
		b.at = now
		return b
	}
	if in.begun == nil {
		in.begun = map[Sender]*blocks{}
	}
	var oldest Sender
	for who, b := range in.begun {
		switch old := in.begun[oldest]; {
		case now.Sub(b.at) > frameTimeout:
			in.giveUp(who, b)
		case old == nil || b.at.Before(old.at):
			oldest = who
		}
	}
	most := in.most
	if most == 0 {
		most = maxSenders
	}
	if b := in.begun[oldest]; b != nil && len(in.begun) >= most {
		in.giveUp(oldest, b)
	}
	b := &blocks{at: now}
	b.forget()
	in.begun[from] = b
	return b
}

func (in *intake) giveUp(who Sender, b *blocks) {
	delete(in.begun, who)
	if b.last > 0 {
		in.bad(who, b.cut())
	}
}

// end gives up what has not come whole.
func (in *intake) end() {
	for who, b := range in.begun {
		in.giveUp(who, b)
	}
}
