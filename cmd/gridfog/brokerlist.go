package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"gridgate/internal/mqtt"
)

// nodeTime is how long one of several brokers may take to answer.
const nodeTime = 5 * time.Second

// brokerList reads the URLs of the nodes of one broker, with commas between
// them: their addresses, and whether they want TLS.
func brokerList(urls string) (addresses []string, secure bool, err error) {
	for i, u := range strings.Split(urls, ",") {
		address, tls, err := mqtt.ParseURL(u)
		if err != nil {
			return nil, false, err
		}
		if i > 0 && tls != secure {
			return nil, false, errors.New("want mqtt:// everywhere or mqtts:// everywhere")
		}
		addresses, secure = append(addresses, address), tls
	}
	return addresses, secure, nil
}

// dialAny opens a connection to one of several nodes, beginning anywhere, so
// that connections are dealt out to all that live.
func dialAny(addresses []string) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: nodeTime, KeepAlive: -1} // MQTT has its own
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		first := rand.IntN(len(addresses)) //nolint:gosec // no secret
		var errs []error
		for i := range addresses {
			address := addresses[(first+i)%len(addresses)]
			conn, err := d.DialContext(ctx, network, address)
			if err == nil {
				return conn, nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", address, err))
			if ctx.Err() != nil {
				break
			}
		}
		return nil, errors.Join(errs...)
	}
}
