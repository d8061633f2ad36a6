package cosem

import (
	"context"
	"net"
	"sync"
	"testing"
)

// stepwise is a context that has ended before it tells those who asked to be
// told, one after the other.
type stepwise struct {
	context.Context
	done chan struct{}

	mu    sync.Mutex
	err   error
	tells []func()
}

func (s *stepwise) Done() <-chan struct{} { return s.done }

func (s *stepwise) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// AfterFunc is what package context looks for in contexts of others.
func (s *stepwise) AfterFunc(f func()) (stop func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tells = append(s.tells, f)
	return func() bool { return true }
}

// TestServeEndsQuietly: the listener may be closed before all that hangs on the
// context knows of its end.
func TestServeEndsQuietly(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepting := make(chan struct{}, 1)
	ctx := &stepwise{Context: t.Context(), done: make(chan struct{})}
	served := make(chan error, 1)
	go func() { served <- (&Receiver{}).Serve(ctx, announced{ln, accepting}) }()
	<-accepting
	ctx.mu.Lock()
	ctx.err = context.Canceled
	close(ctx.done)
	first := ctx.tells[0]
	ctx.mu.Unlock()
	first()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// announced says that it is accepting.
type announced struct {
	net.Listener
	accepting chan<- struct{}
}

func (a announced) Accept() (net.Conn, error) {
	select {
	case a.accepting <- struct{}{}:
	default:
	}
	return a.Listener.Accept()
}
