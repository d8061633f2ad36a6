package mqtttest

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Received is a message as the broker got it, or the will of a client.
type Received struct {
	At        time.Time
	Client    string
	Topic     string
	Payload   []byte
	Retained  bool
	Duplicate bool
	Will      bool
}

// Memory is a broker in memory that keeps everything it gets, for tests in
// simulated time (it has no timers at all) and for brokers that misbehave.
// Clients may subscribe to topics, with + but without #, and get what Send sends;
// with a persistent session also what was sent while they were away. Set the
// fields before Serve.
type Memory struct {
	// Lose says whether a message is forgotten once it is acknowledged; nil is
	// never.
	Lose func(Received) bool
	// Code is the CONNACK's code for a client.
	Code func(client string) byte
	// Puback says whether a message gets its PUBACK; nil is always. It is
	// called in the connection's goroutine and may block.
	Puback func(Received) bool
	// Forbid says whether nobody may subscribe to a topic; nil is none.
	Forbid func(topic string) bool

	mu       sync.Mutex
	received []Received
	retained map[string][]byte
	clients  map[string]*member
	connects int
}

// member is what is known of a client, over its connections.
type member struct {
	conn   net.Conn      // nil while away, and in what a clean session leaves
	write  chan struct{} // has a token while nobody writes; simulated time stands still for who waits for a mutex
	topics map[string]bool
	queue  []*packets.PublishPacket // for when it is back
	keep   bool                     // its session is persistent
	id     uint16
}

// Send gives a message to who subscribed to its topic. It does not wait until
// it has arrived.
func (m *Memory) Send(topic string, retained bool, payload []byte) {
	m.mu.Lock()
	if retained {
		m.retain(topic, payload)
	}
	var to []*member
	for _, c := range m.clients {
		if c.wants(topic) && (c.conn != nil || c.keep) {
			c.queue = append(c.queue, c.packet(topic, false, payload))
			to = append(to, c)
		}
	}
	m.mu.Unlock()
	for _, c := range to {
		m.flush(c)
	}
}

// wants says whether c subscribed to a topic. m.mu is held.
func (c *member) wants(topic string) bool {
	for filter := range c.topics {
		if matches(filter, topic) {
			return true
		}
	}
	return false
}

// matches says whether a filter, which may have +, is for a topic.
func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	return slices.EqualFunc(f, t, func(f, t string) bool { return f == t || f == "+" })
}

// packet makes a message for c. m.mu is held.
func (c *member) packet(topic string, retained bool, payload []byte) *packets.PublishPacket {
	p, _ := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	c.id = c.id%60_000 + 1
	p.TopicName, p.Payload, p.Qos, p.Retain, p.MessageID = topic, payload, 1, retained, c.id
	return p
}

// flush writes what waits for c. What it cannot write stays.
func (m *Memory) flush(c *member) {
	<-c.write
	defer func() { c.write <- struct{}{} }()
	for {
		m.mu.Lock()
		if c.conn == nil || len(c.queue) == 0 {
			m.mu.Unlock()
			return
		}
		p, conn := c.queue[0], c.conn
		m.mu.Unlock()
		if p.Write(conn) != nil {
			return
		}
		m.mu.Lock()
		c.queue = c.queue[1:]
		m.mu.Unlock()
	}
}

// Serve takes connections until l is closed and every connection has ended.
func (m *Memory) Serve(l net.Listener) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			_ = m.serve(c)
			_ = c.Close()
		})
	}
}

// Received gives all messages so far, in the order of their arrival.
func (m *Memory) Received() []Received {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.received)
}

// Retained gives the retained message of a topic, nil when there is none.
func (m *Memory) Retained(topic string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.retained[topic])
}

// Forget drops all retained messages, as a broker without a disk does that is
// started again.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.retained)
}

// Connects counts the connections that were accepted.
func (m *Memory) Connects() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.connects
}

// CloseAll closes every connection.
func (m *Memory) CloseAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.clients {
		if c.conn != nil {
			_ = c.conn.Close()
		}
	}
}

func (m *Memory) serve(c net.Conn) error {
	first, err := packets.ReadPacket(c)
	if err != nil {
		return err
	}
	hello, ok := first.(*packets.ConnectPacket)
	if !ok {
		return errors.New("the first packet is no CONNECT")
	}
	ack, _ := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	if m.Code != nil {
		ack.ReturnCode = m.Code(hello.ClientIdentifier)
	}
	if ack.ReturnCode != packets.Accepted {
		return ack.Write(c)
	}
	me, present := m.enter(hello, c)
	ack.SessionPresent = present
	defer m.leave(me, c)
	if err := me.send(c, ack); err != nil {
		return err
	}
	m.flush(me)
	if err := m.session(c, hello.ClientIdentifier, me); err != nil {
		if hello.WillFlag {
			m.take(Received{Client: hello.ClientIdentifier, Topic: hello.WillTopic, Payload: hello.WillMessage, Retained: hello.WillRetain, Will: true})
		}
		return err
	}
	return nil
}

// enter makes c the client's connection and closes the one it had; present says
// that it had a session.
func (m *Memory) enter(hello *packets.ConnectPacket, c net.Conn) (me *member, present bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clients == nil {
		m.clients = map[string]*member{}
	}
	client := hello.ClientIdentifier
	me = m.clients[client]
	if me != nil && me.conn != nil {
		_ = me.conn.Close()
	}
	present = me != nil && !hello.CleanSession
	if !present {
		me = &member{topics: map[string]bool{}, write: make(chan struct{}, 1)}
		me.write <- struct{}{}
		m.clients[client] = me
	}
	me.conn, me.keep = c, !hello.CleanSession
	m.connects++
	return me, present
}

func (m *Memory) leave(me *member, c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if me.conn == c {
		me.conn = nil
	}
}

// send writes a packet between others.
func (c *member) send(to net.Conn, p packets.ControlPacket) error {
	<-c.write
	defer func() { c.write <- struct{}{} }()
	return p.Write(to)
}

// session takes packets until DISCONNECT, which gives nil, or an error.
func (m *Memory) session(c net.Conn, client string, me *member) error {
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return err
		}
		var answer packets.ControlPacket
		switch p := p.(type) {
		case *packets.PublishPacket:
			answer = m.published(client, p)
		case *packets.SubscribePacket:
			answer = m.subscribe(me, p)
		case *packets.UnsubscribePacket:
			answer = m.unsubscribe(me, p)
		case *packets.PubackPacket:
		case *packets.PingreqPacket:
			answer = packets.NewControlPacket(packets.Pingresp)
		case *packets.DisconnectPacket:
			return nil
		default:
			return fmt.Errorf("unexpected packet %v", p)
		}
		if answer != nil {
			if err := me.send(c, answer); err != nil {
				return err
			}
		}
		m.flush(me)
	}
}

// published takes a message and gives its PUBACK, nil when there is none.
func (m *Memory) published(client string, p *packets.PublishPacket) packets.ControlPacket {
	r := Received{Client: client, Topic: p.TopicName, Payload: p.Payload, Retained: p.Retain, Duplicate: p.Dup}
	if m.Lose == nil || !m.Lose(r) {
		m.take(r)
	}
	if p.Qos != 1 || m.Puback != nil && !m.Puback(r) {
		return nil
	}
	ack, _ := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = p.MessageID
	return ack
}

// subscribe notes topics, and what is retained there is sent next.
func (m *Memory) subscribe(me *member, p *packets.SubscribePacket) packets.ControlPacket {
	m.mu.Lock()
	defer m.mu.Unlock()
	ack, _ := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	ack.MessageID = p.MessageID
	for _, t := range p.Topics {
		if m.Forbid != nil && m.Forbid(t) {
			ack.ReturnCodes = append(ack.ReturnCodes, 0x80)
			continue
		}
		me.topics[t] = true
		ack.ReturnCodes = append(ack.ReturnCodes, 1)
		for _, topic := range slices.Sorted(maps.Keys(m.retained)) {
			if matches(t, topic) {
				me.queue = append(me.queue, me.packet(topic, true, m.retained[topic]))
			}
		}
	}
	return ack
}

// unsubscribe takes topics back.
func (m *Memory) unsubscribe(me *member, p *packets.UnsubscribePacket) packets.ControlPacket {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range p.Topics {
		delete(me.topics, t)
	}
	ack, _ := packets.NewControlPacket(packets.Unsuback).(*packets.UnsubackPacket)
	ack.MessageID = p.MessageID
	return ack
}

// Subscribed gives what a client is subscribed to, in order.
func (m *Memory) Subscribed(client string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clients[client] == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(m.clients[client].topics))
}

func (m *Memory) take(r Received) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.At = time.Now()
	m.received = append(m.received, r)
	if r.Retained {
		m.retain(r.Topic, r.Payload)
	}
}

func (m *Memory) retain(topic string, payload []byte) {
	if m.retained == nil {
		m.retained = map[string][]byte{}
	}
	m.retained[topic] = payload
}
