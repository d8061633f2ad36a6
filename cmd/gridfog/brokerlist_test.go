package main

import (
	"net"
	"slices"
	"strings"
	"testing"
)

func TestBrokerList(t *testing.T) {
	t.Parallel()
	addresses, secure, err := brokerList("mqtts://a,mqtts://b:1")
	if err != nil || !secure || !slices.Equal(addresses, []string{"a:8883", "b:1"}) {
		t.Errorf("%q %v %v", addresses, secure, err)
	}
	for _, bad := range []string{"mqtt://a,mqtts://b", "mqtt://a,", ""} {
		if _, _, err := brokerList(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestDialAnyFindsTheNodeThatLives(t *testing.T) {
	t.Parallel()
	live, dead := listen(t), listen(t)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	addresses := []string{dead.Addr().String(), live.Addr().String()}
	dial := dialAny(addresses)
	for range 20 {
		c, err := dial(t.Context(), "tcp", "")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	if err := live.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := dial(t.Context(), "tcp", "")
	for _, a := range addresses {
		if err == nil || !strings.Contains(err.Error(), a) {
			t.Errorf("the error does not name %s: %v", a, err)
		}
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}
