package main

import (
	"sync"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// packetIDs is a hook that keeps the packet identifiers of the two directions
// apart. They have nothing to do with one another (MQTT 3.1.1, 2.3.1), but the
// library looks both up in one table: a client that had not yet acknowledged
// message 7 was refused its SUBSCRIBE 7, and its PUBLISH 7 took message 7 off the
// list of what is sent again. So a client's identifier is exchanged for one that
// is free, and comes back in the answer.
type packetIDs struct {
	broker.HookBase
}

func (*packetIDs) ID() string { return "packet-ids" }

func (*packetIDs) Provides(b byte) bool {
	return b == broker.OnPacketRead || b == broker.OnPacketEncode
}

func (*packetIDs) OnPacketRead(cl *broker.Client, p packets.Packet) (packets.Packet, error) {
	g := of(cl)
	if g == nil || p.PacketID == 0 {
		return p, nil
	}
	switch p.FixedHeader.Type {
	case packets.Publish, packets.Subscribe, packets.Unsubscribe, packets.Pubrel:
		p.PacketID = g.exchanged.give(p.PacketID, func(id uint16) bool {
			_, taken := cl.State.Inflight.Get(id)
			return !taken
		})
	default: // of the other direction
	}
	return p, nil
}

func (*packetIDs) OnPacketEncode(cl *broker.Client, p packets.Packet) packets.Packet {
	g := of(cl)
	if g == nil {
		return p
	}
	switch p.FixedHeader.Type {
	case packets.Puback, packets.Pubcomp, packets.Suback, packets.Unsuback:
		p.PacketID = g.exchanged.back(p.PacketID, true)
	case packets.Pubrec: // PUBREL and PUBCOMP follow
		p.PacketID = g.exchanged.back(p.PacketID, false)
	default:
	}
	return p
}

// exchange is which identifiers of a client stand for which. The zero value is
// ready.
type exchange struct {
	mu    sync.Mutex
	ours  map[uint16]uint16 // by the client's
	their map[uint16]uint16 // by ours
}

// give gives ours for a client's; free says which the server does not use.
func (e *exchange) give(theirs uint16, free func(uint16) bool) uint16 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if id, ok := e.ours[theirs]; ok {
		return id
	}
	if e.ours == nil {
		e.ours, e.their = map[uint16]uint16{}, map[uint16]uint16{}
	}
	id := theirs ^ 0x8000 // far from where servers count
	for range 1 << 16 {
		if _, used := e.their[id]; id != 0 && !used && free(id) {
			break
		}
		id++
	}
	e.ours[theirs], e.their[id] = id, theirs
	return id
}

// back gives the client's for ours, and forgets both when done is set.
func (e *exchange) back(ours uint16, done bool) uint16 {
	e.mu.Lock()
	defer e.mu.Unlock()
	theirs, ok := e.their[ours]
	if !ok {
		return ours
	}
	if done {
		delete(e.ours, theirs)
		delete(e.their, ours)
	}
	return theirs
}
