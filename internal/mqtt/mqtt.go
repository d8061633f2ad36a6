// Package mqtt connects to an MQTT 3.1.1 broker, and owns the names of the
// topics. It is the one package that knows the MQTT library.
//
// A Conn is one connection and no more: when it is lost, Done is closed and
// the caller dials again. Nothing is kept from one to the next, nothing is
// retried, and nothing waits in the library: the caller's store is the only
// queue. (The library's own reconnection sends again by itself what the caller
// would send too, and keeps what is published offline without bound.)
//
//	Dial -> connected -> Close  (DISCONNECT, the broker drops the will)
//	                  -> Abort, or lost  (the broker publishes the will)
//	                  -> Done is closed, Err says why
package mqtt

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"gridgate/internal/secret"
)

// Defaults of Options.
const (
	DefaultKeepAlive      = 5 * time.Minute
	DefaultConnectTimeout = 30 * time.Second
	DefaultWriteTimeout   = 15 * time.Second
	DefaultMaxInbound     = 256 << 10
)

// Message is a message of a broker, or a will.
type Message struct {
	Topic    string
	Payload  []byte
	Retained bool
	// Cut says that it was longer than Options.MaxInbound, and that Payload is
	// its beginning only (see Options.CutLong).
	Cut bool
	// Duplicate says that the broker may have sent it before.
	Duplicate bool

	ack func()
}

// Ack sends the PUBACK of a message that came over a connection with OwnAcks,
// from any goroutine; once the connection has ended it does nothing. What a
// persistent session got no PUBACK for comes again over the next connection.
func (m Message) Ack() {
	if m.ack != nil {
		m.ack()
	}
}

// Options says where and how to connect. Address and ClientID are needed.
type Options struct {
	Address string      // host:port
	TLS     *tls.Config // nil for a connection in the clear; see TLS.Config
	// Roots gives the authorities that are trusted, anew for each connection; nil
	// leaves them to TLS. See TLS.Roots.
	Roots    func() *x509.CertPool
	ClientID string
	Username string
	Password secret.Value
	// Persistent asks the broker to keep subscriptions, and messages for them,
	// while we are away. They come in at once after connecting: set Handler.
	Persistent bool
	Will       *Message      // published by the broker when the connection is lost
	Handler    func(Message) // takes what no Subscribe of this Conn asked for; may be nil

	KeepAlive time.Duration // 0 is DefaultKeepAlive; whole seconds
	// OwnPings says that the caller calls Ping, at least every KeepAlive, and
	// looks for the answers. Otherwise the connection does.
	OwnPings bool
	// OwnAcks says that the caller calls Message.Ack, in the order of arrival.
	// Otherwise the PUBACK is sent when the handler returns.
	OwnAcks        bool
	ConnectTimeout time.Duration // for connecting, securing and CONNACK together
	WriteTimeout   time.Duration // for 2 KiB to be taken by the network
	MaxInbound     int           // longest message taken from the broker, in bytes
	// CutLong has a longer one handed over cut off, and acknowledged. Otherwise it
	// ends the connection.
	CutLong bool
	// SendBuffer bounds the socket's send buffer, in bytes; 0 leaves it to the
	// system. On a slow link what stands there cannot be overtaken.
	SendBuffer int
	// ReceiveBuffer bounds what the broker may send ahead, likewise.
	ReceiveBuffer int
	// Interface is the way out of this machine: a network device or an address
	// of its own; "" leaves it to the system's routes.
	Interface string
	// Traffic counts what the connection costs; nil counts nothing.
	Traffic *Traffic
	// Dial opens the network connection; nil is a plain dialer over Interface.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (o *Options) setDefaults() {
	if o.KeepAlive == 0 {
		o.KeepAlive = DefaultKeepAlive
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = DefaultConnectTimeout
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = DefaultWriteTimeout
	}
	if o.MaxInbound == 0 {
		o.MaxInbound = DefaultMaxInbound
	}
	if o.Dial == nil {
		o.Dial = dialer(o.Interface)
	}
}

// Conn is one connection to a broker. Its methods may be called from several
// goroutines.
type Conn struct {
	address string
	client  paho.Client
	socket  *socket
	longest int // message taken whole
	resumed bool
	once    sync.Once

	subscribing sync.Mutex // one SUBSCRIBE at a time
	done        chan struct{}
	err         error // valid when done is closed
}

// Dial connects and waits for the broker's CONNACK. ctx bounds the dialing
// only. Errors name the broker's address and are ErrUnreachable, ErrTLS or
// ErrRefused; they never hold the password.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	o.setDefaults()
	ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	nc, err := open(ctx, &o)
	if err != nil {
		return nil, err
	}
	c := &Conn{address: o.Address, socket: newSocket(nc, o.WriteTimeout, o.MaxInbound, o.CutLong), longest: o.MaxInbound, done: make(chan struct{})}
	c.client = paho.NewClient(c.pahoOptions(&o))
	token := c.client.Connect()
	stop := context.AfterFunc(ctx, func() { c.socket.abort(ctx.Err()) })
	<-token.Done()
	interrupted := !stop()
	if err := token.Error(); err != nil {
		c.socket.abort(errAborted)
		<-c.socket.stopped
		if ctx.Err() != nil && !timedOut(ctx.Err()) {
			return nil, fmt.Errorf("broker %s: %w", o.Address, context.Cause(ctx))
		}
		return nil, refused(o.Address, returnCode(token), c.socket.cause(err), o.TLS)
	}
	if t, ok := token.(*paho.ConnectToken); ok {
		c.resumed = t.SessionPresent()
	}
	if interrupted { // after the CONNACK: the connection is ending already
		<-c.done
		return nil, c.err
	}
	return c, nil
}

// open opens and secures the network connection.
func open(ctx context.Context, o *Options) (net.Conn, error) {
	nc, err := o.Dial(ctx, "tcp", o.Address)
	o.Traffic.opened(err == nil, o.Address)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil, fmt.Errorf("broker %s: %w", o.Address, err)
		}
		return nil, unreachable(o.Address, err)
	}
	if tcp, ok := nc.(*net.TCPConn); ok { // hints: without them only latency suffers
		if o.SendBuffer > 0 {
			_ = tcp.SetWriteBuffer(o.SendBuffer)
		}
		if o.ReceiveBuffer > 0 {
			_ = tcp.SetReadBuffer(o.ReceiveBuffer)
		}
	}
	nc = o.Traffic.over(nc)
	if o.TLS == nil {
		return nc, nil
	}
	config := o.TLS.Clone()
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(o.Address)
		if err != nil {
			host = o.Address
		}
		config.ServerName = host
	}
	if o.Roots != nil {
		config.RootCAs = o.Roots()
	}
	secure := tls.Client(nc, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		if errors.Is(err, context.Canceled) {
			return nil, fmt.Errorf("broker %s: %w", o.Address, err)
		}
		return nil, insecure(o.Address, err, o.TLS)
	}
	return secure, nil
}

func (c *Conn) pahoOptions(o *Options) *paho.ClientOptions {
	p := paho.NewClientOptions()
	p.Servers = []*url.URL{{Scheme: "tcp", Host: o.Address}}
	p.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return c.socket, nil })
	p.SetProtocolVersion(4) // 3.1.1, and no second attempt with 3.1
	p.SetClientID(o.ClientID)
	p.SetUsername(o.Username)
	p.SetPassword(string(o.Password.Reveal()))
	p.SetCleanSession(!o.Persistent)
	p.SetStore(paho.NewMemoryStore())
	p.SetAutoReconnect(false)
	p.SetConnectRetry(false)
	p.SetKeepAlive(o.KeepAlive)
	p.SetAutoAckDisabled(o.OwnAcks)
	if o.OwnPings {
		p.SetKeepAlive(0) // the library would announce no keep-alive then
		c.socket.announce = uint16(o.KeepAlive / time.Second)
	}
	// Long enough for a link with a full queue, and a cell reselection.
	p.SetPingTimeout(min(max(o.KeepAlive/2, 10*time.Second), time.Minute))
	p.SetConnectTimeout(o.ConnectTimeout)
	// Writes into the socket do not block, so this bounds only the case of a
	// Publish while the connection is being lost.
	p.SetWriteTimeout(2 * time.Second)
	p.SetConnectionLostHandler(func(_ paho.Client, err error) { c.end(err) })
	if o.Will != nil {
		p.SetBinaryWill(o.Will.Topic, o.Will.Payload, 1, o.Will.Retained)
	}
	if o.Handler != nil {
		p.SetDefaultPublishHandler(receive(o.Handler, o.MaxInbound))
	}
	return p
}

func returnCode(t paho.Token) byte {
	if c, ok := t.(*paho.ConnectToken); ok {
		return c.ReturnCode()
	}
	return 0
}

// cutTo is how much of a message is handed over that is too long.
const cutTo = 4 << 10

func receive(handler func(Message), longest int) paho.MessageHandler {
	return func(_ paho.Client, m paho.Message) {
		payload := m.Payload()
		body := 2 + len(m.Topic()) + len(payload)
		if m.Qos() > 0 {
			body += 2
		}
		isCut := body > longest
		if isCut {
			payload = bytes.Clone(payload[:min(len(payload), cutTo)])
		}
		handler(Message{Topic: m.Topic(), Payload: payload, Retained: m.Retained(), Cut: isCut, Duplicate: m.Duplicate(), ack: m.Ack})
	}
}
