package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"gridgate/agent/command"
	"gridgate/agent/order"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// tunnelling is a tunnel to one meter, from a port of this machine.
type tunnelling struct {
	client

	making     making
	listen     string
	length     time.Duration
	idle, wait time.Duration

	env   cli.Env
	order made
	key   ed25519.PrivateKey
	parts chan []byte // from the meter, in order
	heard int         // the last part
	last  chan command.Result
}

func tunnelVerb() cli.Verb {
	return cli.Verb{
		Name:    "tunnel",
		Summary: "let the maker's tool on this machine talk to one meter behind a gateway, by a signed command",
		Example: []string{
			"gridfog tunnel -broker mqtts://fog.example -ca ca.pem -cert me.pem -key me.key \\",
			"    -sign control.key -to north/gw-7 -meter house-07 -for 30m -listen 127.0.0.1:4059",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			t := &tunnelling{client: client{verb: "tunnel"}, making: making{now: time.Now}}
			t.flags(fs, "mqtt://127.0.0.1:1883")
			fs.StringVar(&t.making.to, "to", "", "the gateway, `SITE/GATEWAY`")
			fs.StringVar(&t.making.meters, "meter", "", "the `METER`: an id or a serial number")
			fs.StringVar(&t.making.sign, "sign", "", "sign the command with this secret key `FILE` of the role control; with two that have a comma between, twice")
			fs.StringVar(&t.making.passwordFile, "sign-password-file", "", "a `FILE` with its password; with two, likewise")
			fs.StringVar(&t.listen, "listen", "127.0.0.1:0", "`host:port` that the tool connects to")
			fs.DurationVar(&t.length, "for", 30*time.Minute, "how long the tunnel lasts at most")
			fs.DurationVar(&t.idle, "idle", 5*time.Minute, "it ends when nothing passes for so long")
			fs.DurationVar(&t.wait, "wait", 2*time.Minute, "how long to wait until the gateway opens it")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("tunnel: unexpected argument %q", args[0])
				}
				t.env = env
				return t.run(ctx)
			}
		},
	}
}

func (t *tunnelling) run(ctx context.Context) error {
	if t.making.sign == "" || t.making.to == "" || t.making.meters == "" {
		return cli.Usagef("tunnel: want -sign, -to and -meter")
	}
	if err := t.prepare(nil); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gridfog-tunnel-")
	if err != nil {
		return fmt.Errorf("tunnel: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("tunnel: %w", err)
	}
	t.key, t.making.queue, t.making.valid = key, dir, t.wait+time.Minute
	all, err := t.making.make([]string{
		"tunnel", "key=" + base64.StdEncoding.EncodeToString(public), "for=" + t.length.String(), "idle=" + t.idle.String(),
	})
	if err != nil {
		return err
	}
	if len(all) != 1 || all[0].d.Target.Group != "" {
		return cli.Usagef("tunnel: -to: %q; want one gateway", t.making.to)
	}
	t.order = all[0]
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", t.listen)
	if err != nil {
		return cli.Usagef("tunnel: -listen: %v", err)
	}
	defer func() { _ = ln.Close() }()
	t.parts, t.last = make(chan []byte, 256), make(chan command.Result, 1)
	return t.once(ctx, func(ctx context.Context, conn *mqtt.Conn) error {
		to := t.order.d.Target
		if err := conn.Subscribe(ctx, mqtt.ResultFilter(meter.ID(to.Site), meter.ID(to.Gateway)), t.take); err != nil {
			return err
		}
		if err := t.open(ctx, conn); err != nil {
			return err
		}
		fmt.Fprintf(t.env.Stdout, "%s\n", ln.Addr())
		fmt.Fprintf(t.env.Stderr, "tunnel: open for %v: the tool connects to %s; it ends when the tool hangs up\n", t.length, ln.Addr())
		return t.carry(ctx, conn, ln)
	})
}

// take takes what the gateway says of the tunnel, and what the meter says.
func (t *tunnelling) take(m mqtt.Message) {
	topic, err := mqtt.ParseTopic(m.Topic)
	if err != nil || topic.Kind != mqtt.Result || string(topic.ID) != t.order.d.ID {
		return
	}
	if topic.Part > 0 {
		if topic.Part != t.heard+1 { // it came twice
			return
		}
		select {
		case t.parts <- slices.Clone(m.Payload):
			t.heard++
		default: // the tool takes nothing
		}
		return
	}
	var r command.Result
	if json.Unmarshal(m.Payload, &r) != nil || r.Hash != hex.EncodeToString(t.order.d.Hash[:]) || !r.State.Final() {
		return
	}
	select {
	case t.last <- r:
	default:
	}
}

// open orders the tunnel, and waits until it is open.
func (t *tunnelling) open(ctx context.Context, conn *mqtt.Conn) error {
	give := time.NewTimer(t.wait)
	defer give.Stop()
	for {
		if err := t.publish(ctx, conn, t.order.data); err != nil {
			return err
		}
		again := time.NewTimer(10 * time.Second) // who was away did not hear it
		select {
		case part := <-t.parts:
			again.Stop()
			if string(part) != command.TunnelOpen {
				return errors.New("tunnel: the gateway says something else than that it is open")
			}
			return nil
		case r := <-t.last:
			again.Stop()
			return t.ended(r)
		case <-give.C:
			again.Stop()
			return fmt.Errorf("tunnel: not open after %v", t.wait)
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-conn.Done():
			again.Stop()
			return conn.Err()
		case <-again.C:
		}
	}
}

func (t *tunnelling) publish(ctx context.Context, conn *mqtt.Conn, payload []byte) error {
	token, err := conn.Publish(ctx, orderTopic(t.order.d.Target, order.KindCommand), false, payload)
	if err != nil {
		return err
	}
	select {
	case <-token.Done():
		return token.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// carry has the first who connects talk to the meter.
func (t *tunnelling) carry(ctx context.Context, conn *mqtt.Conn, ln net.Listener) error {
	var tool net.Conn
	var result error
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	connected := make(chan net.Conn, 1)
	group.Go(func() error { // from the tool
		c, err := ln.Accept()
		if err != nil {
			return nil // it ended before
		}
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
		connected <- c
		return t.up(ctx, conn, c)
	})
	group.Go(func() error { // from the gateway
		defer func() {
			if tool != nil {
				_ = tool.Close()
			}
		}()
		for {
			if tool == nil {
				select {
				case tool = <-connected:
				case r := <-t.last:
					result = t.ended(r)
					return errEnough
				case <-ctx.Done():
					return nil
				case <-conn.Done():
					return conn.Err()
				}
			}
			select {
			case part := <-t.parts:
				if _, err := tool.Write(part); err != nil {
					fmt.Fprintln(t.env.Stderr, "tunnel: the tool hung up:", err)
				}
			case r := <-t.last:
				for len(t.parts) > 0 {
					_, _ = tool.Write(<-t.parts)
				}
				result = t.ended(r)
				return errEnough
			case <-ctx.Done():
				return nil
			case <-conn.Done():
				return conn.Err()
			}
		}
	})
	if err := group.Wait(); err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return result
}

// up signs and sends what the tool says, and that it hung up.
func (t *tunnelling) up(ctx context.Context, conn *mqtt.Conn, tool io.Reader) error {
	buf := make([]byte, 2048)
	for number := uint32(1); ; number++ {
		n, err := tool.Read(buf)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // we hung up
		}
		if n == 0 && err == nil {
			number--
			continue
		}
		if perr := t.publish(ctx, conn, command.AppendTunnel(nil, t.key, t.order.d.ID, number, buf[:n])); perr != nil {
			return perr
		}
		if n > 0 && err != nil {
			number++
			if perr := t.publish(ctx, conn, command.AppendTunnel(nil, t.key, t.order.d.ID, number, nil)); perr != nil {
				return perr
			}
		}
		if err != nil {
			return nil //nolint:nilerr // the tool hung up; the result comes
		}
	}
}

func (t *tunnelling) ended(r command.Result) error {
	text := r.Text
	if text == "" && len(r.Meters) > 0 {
		text = r.Meters[0].Text
	}
	if r.State != command.Done {
		return fmt.Errorf("tunnel: %s: %s", r.State, text)
	}
	fmt.Fprintln(t.env.Stderr, "tunnel:", text)
	return nil
}
