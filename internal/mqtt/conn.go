package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// disconnectTime is how long Close waits for the library, in milliseconds.
const disconnectTime = 1500

// Done is closed when the connection has ended and its goroutines have.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says why the connection ended: an ErrLost with the broker's address, nil
// after Close and while the connection stands.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Ping asks the broker for a sign of life. What it gives is closed when that
// is there; nobody watches that it comes, as for KeepAlive.
func (c *Conn) Ping() <-chan struct{} { return c.socket.ping() }

// Said is when the network last took something from us, Heard when it last
// gave us something; at first both are when the connection was made.
func (c *Conn) Said() time.Time { return time.Unix(0, c.socket.said.Load()) }

// Heard is explained at Said.
func (c *Conn) Heard() time.Time { return time.Unix(0, c.socket.heard.Load()) }

// Amid is when the network last gave us a part of a message whose end had not come:
// what the broker said after it cannot be there yet. Long ago where it never did.
func (c *Conn) Amid() time.Time { return time.Unix(0, c.socket.amid.Load()) }

// Resumed says that the broker still had our session, and so our subscriptions.
func (c *Conn) Resumed() bool { return c.resumed }

// Abort ends the connection at once, without a DISCONNECT: the broker
// publishes the will. Err gives reason. It does not wait; Done does.
func (c *Conn) Abort(reason error) { c.socket.abort(reason) }

// Close says goodbye with a DISCONNECT, which makes the broker drop the will,
// and waits until the connection has ended: 2.5 s at most, unless a handler
// blocks. It does not wait for PUBACKs.
func (c *Conn) Close() {
	c.client.Disconnect(disconnectTime)
	_ = c.socket.Close()
	<-c.socket.stopped
	c.end(nil)
}

// end closes Done, once. Everything but the caller's goroutine has ended.
func (c *Conn) end(err error) {
	c.once.Do(func() {
		if err != nil {
			c.socket.abort(err)
			<-c.socket.stopped
			c.err = c.failed(err)
		}
		close(c.done)
	})
}

// Token is a message on its way to the broker.
type Token struct {
	token paho.Token
	conn  *Conn
}

// Done is closed when the broker's PUBACK is there, or when it cannot come any
// more; Err says which. On a persistent session only the former closes it:
// watch the connection's Done too.
func (t Token) Done() <-chan struct{} { return t.token.Done() }

// Err is nil after a PUBACK. It is valid when Done is closed.
func (t Token) Err() error {
	return t.conn.failed(t.token.Error())
}

// Publish sends a message with QoS 1 and gives its token. Messages go out in
// the order of the calls. While 64 KiB wait for the network, it waits; ctx
// bounds that. payload must not change until the token is done.
//
// A PUBACK says that the broker has the message, not that anybody may read it:
// MQTT 3.1.1 has no way to say that the topic is forbidden.
func (c *Conn) Publish(ctx context.Context, topic string, retained bool, payload []byte) (Token, error) {
	if err := c.waitForRoom(ctx, len(payload)); err != nil {
		return Token{}, err
	}
	t := Token{c.client.Publish(topic, 1, retained, payload), c}
	select {
	case <-t.Done():
		return t, t.Err()
	default:
		return t, nil
	}
}

// Send sends a message with QoS 0, not retained: nobody says whether the broker
// has it. It goes out in order with those of Publish, and waits as Publish does.
func (c *Conn) Send(ctx context.Context, topic string, payload []byte) error {
	if err := c.waitForRoom(ctx, len(payload)); err != nil {
		return err
	}
	token := c.client.Publish(topic, 0, false, payload)
	select {
	case <-token.Done(): // when the socket has taken it, which does not wait
		return c.failed(token.Error())
	case <-c.done:
		return c.ended()
	}
}

// waitForRoom waits until n bytes more may wait for the network.
func (c *Conn) waitForRoom(ctx context.Context, n int) error {
	for {
		waiting, room := c.socket.queued()
		if waiting == 0 || waiting+n <= publishRoom {
			return nil
		}
		select {
		case <-room:
		case <-c.done:
			return c.ended()
		case <-ctx.Done():
			return fmt.Errorf("broker %s: publish: %w", c.address, ctx.Err())
		}
	}
}

// Subscribe asks for the messages that match filter, with QoS 1, and waits for
// the broker's SUBACK. handler is called in the order of arrival, one message
// at a time, from a goroutine of the connection; a PUBACK is sent when it
// returns. It must not call the Conn and must not block for long.
func (c *Conn) Subscribe(ctx context.Context, filter string, handler func(Message)) error {
	return c.SubscribeAll(ctx, []string{filter}, handler)
}

// SubscribeAll is Subscribe for several filters in one packet. What the broker
// grants is subscribed to also when it refuses others, which is the error.
func (c *Conn) SubscribeAll(ctx context.Context, filters []string, handler func(Message)) error {
	c.subscribing.Lock() // the library does not survive a SUBACK for more filters than were asked for
	defer c.subscribing.Unlock()
	c.socket.asked.Store(int32(len(filters)))
	asked := make(map[string]byte, len(filters))
	for _, f := range filters {
		asked[f] = 1
	}
	token := c.client.SubscribeMultiple(asked, receive(handler, c.longest))
	select {
	case <-token.Done():
	case <-c.done:
		return c.ended()
	case <-ctx.Done():
		return fmt.Errorf("broker %s: subscribe to %s: %w", c.address, filters[0], ctx.Err())
	}
	if err := c.failed(token.Error()); err != nil {
		return err
	}
	sub, ok := token.(*paho.SubscribeToken)
	if !ok {
		return nil
	}
	granted := sub.Result()
	var refused []string
	for _, f := range filters {
		if code, ok := granted[f]; !ok || code > 2 {
			refused = append(refused, f)
		}
	}
	if len(refused) > 0 {
		return &brokerError{c.address, ErrRefused, "it does not allow to subscribe to " + strings.Join(refused, ", "), errors.New("SUBACK 0x80")}
	}
	return nil
}

// Unsubscribe takes subscriptions back, also of a connection before in the same
// session, and waits for the broker's UNSUBACK.
func (c *Conn) Unsubscribe(ctx context.Context, filters ...string) error {
	token := c.client.Unsubscribe(filters...)
	select {
	case <-token.Done():
		return c.failed(token.Error())
	case <-c.done:
		return c.ended()
	case <-ctx.Done():
		return fmt.Errorf("broker %s: unsubscribe from %s: %w", c.address, filters[0], ctx.Err())
	}
}

// failed makes an ErrLost of the library's error, nil of none. What the socket
// knows is nearer to the cause.
func (c *Conn) failed(err error) error {
	if err == nil {
		return nil
	}
	if reason := c.socket.reason(); reason != nil {
		err = reason
	}
	return lost(c.address, err)
}

// ended is why a call on an ended connection fails.
func (c *Conn) ended() error {
	if c.err != nil {
		return c.err
	}
	return &brokerError{c.address, ErrLost, "it was closed here", errAborted}
}
