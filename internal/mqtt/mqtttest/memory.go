package mqtttest

import (
	"errors"
	"fmt"
	"net"
	"slices"
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
// simulated time (it has no timers at all) and for brokers that misbehave. It
// serves publishers; nobody can subscribe. Set the fields before Serve.
type Memory struct {
	// Code is the CONNACK's code for a client.
	Code func(client string) byte
	// Puback says whether a message gets its PUBACK; nil is always. It is
	// called in the connection's goroutine and may block.
	Puback func(Received) bool

	mu       sync.Mutex
	received []Received
	retained map[string][]byte
	clients  map[string]net.Conn
	connects int
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
		_ = c.Close()
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
	if ack.ReturnCode == packets.Accepted {
		m.enter(hello.ClientIdentifier, c)
	}
	if err := ack.Write(c); err != nil || ack.ReturnCode != packets.Accepted {
		return err
	}
	if err := m.session(c, hello.ClientIdentifier); err != nil {
		if hello.WillFlag {
			m.take(Received{Client: hello.ClientIdentifier, Topic: hello.WillTopic, Payload: hello.WillMessage, Retained: hello.WillRetain, Will: true})
		}
		return err
	}
	return nil
}

// enter makes c the client's connection and closes the one it had.
func (m *Memory) enter(client string, c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clients == nil {
		m.clients = map[string]net.Conn{}
	}
	if old := m.clients[client]; old != nil {
		_ = old.Close()
	}
	m.clients[client] = c
	m.connects++
}

// session takes packets until DISCONNECT, which gives nil, or an error.
func (m *Memory) session(c net.Conn, client string) error {
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return err
		}
		switch p := p.(type) {
		case *packets.PublishPacket:
			r := Received{Client: client, Topic: p.TopicName, Payload: p.Payload, Retained: p.Retain, Duplicate: p.Dup}
			m.take(r)
			if p.Qos != 1 || m.Puback != nil && !m.Puback(r) {
				continue
			}
			ack, _ := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
			ack.MessageID = p.MessageID
			if err := ack.Write(c); err != nil {
				return err
			}
		case *packets.PingreqPacket:
			if err := packets.NewControlPacket(packets.Pingresp).Write(c); err != nil {
				return err
			}
		case *packets.DisconnectPacket:
			return nil
		default:
			return fmt.Errorf("unexpected packet %v", p)
		}
	}
}

func (m *Memory) take(r Received) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.At = time.Now()
	m.received = append(m.received, r)
	if r.Retained {
		if m.retained == nil {
			m.retained = map[string][]byte{}
		}
		m.retained[r.Topic] = r.Payload
	}
}
