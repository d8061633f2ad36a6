package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"gridgate/internal/backoff"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/secret"
)

// client is how a verb reaches the broker: its flags, and connections one after
// another.
type client struct {
	verb                                string
	broker, user, passwordFile, session string
	tls                                 mqtt.TLS

	options mqtt.Options
}

func (c *client) flags(fs *flag.FlagSet, broker string) {
	fs.StringVar(&c.broker, "broker", broker, "the broker's `URL`: mqtt:// (or tcp://), or mqtts:// for TLS; those of a cluster's nodes with commas between them,\nwhose certificates then have the first one's name")
	fs.StringVar(&c.tls.CAFile, "ca", "", "trust these authorities only: a PEM `FILE`")
	fs.StringVar(&c.tls.CertFile, "cert", "", "client certificate, a PEM `FILE`")
	fs.StringVar(&c.tls.KeyFile, "key", "", "its key, a PEM `FILE`")
	fs.StringVar(&c.user, "user", "", "user `NAME` at the broker")
	fs.StringVar(&c.passwordFile, "password-file", "", "`FILE` with the user's password")
}

// prepare checks the flags, and makes options of them. handler takes what a
// session that was kept holds.
func (c *client) prepare(handler func(mqtt.Message)) error {
	addresses, secure, err := brokerList(c.broker)
	if err != nil {
		return cli.Usagef("%s: -broker: %v", c.verb, err)
	}
	if _, err := meter.ParseID(c.session); c.session != "" && err != nil {
		return cli.Usagef("%s: -session: %v", c.verb, err)
	}
	address := addresses[0]
	c.options = mqtt.Options{Address: address, Username: c.user, KeepAlive: time.Minute, MaxInbound: maxMessage, Handler: handler}
	if len(addresses) > 1 {
		c.options.Dial = dialAny(addresses)
	}
	c.options.ClientID = fmt.Sprintf("gridfog-%s-%08x", c.verb, rand.Uint32()) //nolint:gosec // no secret
	if c.session != "" {
		c.options.ClientID, c.options.Persistent = "gridfog-"+c.verb+"-"+c.session, true
	}
	if secure {
		if c.options.TLS, err = c.tls.Config(); err != nil {
			return fmt.Errorf("broker %s: %w", address, err)
		}
		c.options.Roots = c.tls.Roots()
	} else if c.tls != (mqtt.TLS{}) {
		return cli.Usagef("%s: -ca, -cert and -key go with an mqtts:// broker", c.verb)
	}
	if c.passwordFile != "" {
		b, err := os.ReadFile(c.passwordFile)
		if err != nil {
			return fmt.Errorf("password: %w", err)
		}
		c.options.Password = secret.Of(strings.TrimRight(string(b), "\r\n"))
	}
	return nil
}

// checkID checks a flag that names a site, a gateway or a meter.
func checkID(verb, name, id string) error {
	if _, err := meter.ParseID(id); id != "" && err != nil {
		return cli.Usagef("%s: -%s: %v", verb, name, err)
	}
	return nil
}

// once dials, and lets use have the connection.
func (c *client) once(ctx context.Context, use func(context.Context, *mqtt.Conn) error) error {
	conn, err := mqtt.Dial(ctx, c.options)
	if err != nil {
		return err
	}
	defer conn.Close()
	return use(ctx, conn)
}

// errEnough ends follow from within use.
var errEnough = errors.New("enough")

// follow keeps a connection until ctx ends, or use has enough. use calls
// connected once it has subscribed; what goes wrong is noted once.
func (c *client) follow(ctx context.Context, note func(string), use func(ctx context.Context, conn *mqtt.Conn, connected func()) error) {
	pause := &backoff.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	said := ""
	for ctx.Err() == nil {
		err := c.once(ctx, func(ctx context.Context, conn *mqtt.Conn) error {
			return use(ctx, conn, func() {
				pause.Reset()
				said = ""
				note("broker " + c.options.Address + ": connected")
			})
		})
		if ctx.Err() != nil || errors.Is(err, errEnough) {
			return
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			note(said + "; trying again")
		}
		_ = pause.Wait(ctx) // the loop looks at ctx
	}
}
