package agent

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"gridgate/agent/status"
	"gridgate/internal/proctest"
)

// TestReportOfABridge: the nodes of a base node are in the report, also those
// that nobody reads, and the bridge can be lent.
func TestReportOfABridge(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	open := 0
	var all sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				mu.Lock()
				open++
				mu.Unlock()
				defer func() { _ = conn.Close(); mu.Lock(); open--; mu.Unlock() }()
				var ask [9]byte
				for {
					if _, err := io.ReadFull(conn, ask[:]); err != nil {
						return
					}
					for i, name := range []string{"A1", "B2"} {
						m := append([]byte{0, 1, 0, 0, 0, 1, 0, 14, 1, 0, byte(i + 1), 0, 1, 2}, name...)
						_, _ = conn.Write(append(m, 0, 0x80, 0xE1, 0, 0, byte(i)))
					}
				}
			})
		}
	})
	s := newSite(t)
	at := ln.Addr().String()
	s.make(s.config("here", fmt.Sprintf(`{id: m1, serial: A1, groups: [fast], url: "plc+prime://%s?node=B2"}`, at)))
	s.run()
	var b status.Bridge
	proctest.Until(t, "the nodes are listed", func() bool {
		if all := s.agent.Report().Bridges; len(all) == 1 {
			b = all[0]
		}
		return len(b.Nodes) == 2 && b.Nodes[0].State == "present"
	})
	if b.Line != at || b.Kind != "prime" || !b.Connected || b.Error != "" || b.Nodes[0].Meter != "m1" || b.Nodes[0].Serial != "B2" ||
		b.Nodes[0].EUI48 != "00:80:E1:00:00:01" || b.Nodes[0].Asked != 0 ||
		b.Nodes[1].Meter != "" || b.Nodes[1].Device != 1 || b.Nodes[1].State != "present" || b.Nodes[1].Since == nil {
		t.Errorf("%+v", b)
	}
	// The agent waits for what was said before its start, so that a visit is
	// under way: it is cut off by the end of the test, and not by this.
	if got := s.agent.lineKey(at); got != at {
		t.Errorf("the line is %s", got)
	}
	if d := time.Since(*b.Nodes[1].Since); d < 0 || d > time.Hour {
		t.Errorf("since %v", d)
	}
}

// TestANodeWithoutGroupsIsAskedWhatItHas: the bridge is connected to for it.
func TestANodeWithoutGroupsIsAskedWhatItHas(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := ln.Accept(); err == nil {
			accepted <- conn
		}
		close(accepted)
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		for conn := range accepted {
			_ = conn.Close()
		}
	})
	s := newSite(t)
	s.make(s.config("here", fmt.Sprintf(`{id: m1, serial: A1, url: "plc+prime://%s?node=B2"}`, ln.Addr())))
	s.run()
	proctest.Until(t, "the bridge is connected to", func() bool {
		all := s.agent.Report().Bridges
		return len(all) == 1 && all[0].Connected
	})
}
