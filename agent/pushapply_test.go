package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gridgate/configs"
	"gridgate/internal/proctest"
)

// TestPushesWhileAConfigurationIsApplied: what is being taken while the places to
// listen in change holds nothing up.
func TestPushesWhileAConfigurationIsApplied(t *testing.T) {
	t.Parallel()
	s, cfg, listen := pushSite(t, 1)
	path := filepath.Join(s.dir, "gridgate.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := configs.Parse(path, append(text, "push: {listen: [\"udp://"+listen+"\"]}\n"...))
	if err != nil {
		t.Fatal(err)
	}
	s.make(cfg)
	s.run()
	proctest.Until(t, "the port is open", func() bool { return gasp(listen, lastGasp("S000", 1)) == nil })
	ctx, cancel := context.WithCancel(t.Context())
	var pushing sync.WaitGroup
	defer pushing.Wait()
	defer cancel()
	for range 4 {
		pushing.Go(func() {
			c, err := net.Dial("udp", listen)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for ctx.Err() == nil { // of a stranger: it is noted, and nothing is stored
				_, _ = c.Write(lastGasp("X1", 1))
			}
		})
	}
	for i := range 20 {
		next := cfg
		if i%2 == 0 {
			next = other
		}
		applied := make(chan error, 1)
		go func() { applied <- s.agent.Apply(t.Context(), next) }()
		select {
		case err := <-applied:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal(errors.New("applying has come to no end"))
		}
	}
}
