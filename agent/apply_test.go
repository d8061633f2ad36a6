package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/poll"
	"gridgate/agent/status"
	"gridgate/buffer"
	"gridgate/configs"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// zeroMeter is a Modbus meter whose registers are all zero. It counts the
// connections that it was asked for.
type zeroMeter struct {
	address string
	mu      sync.Mutex
	conns   []net.Conn
	asked   int // requests
}

func startZeroMeter(t *testing.T) *zeroMeter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &zeroMeter{address: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.conns = append(m.conns, c)
			m.mu.Unlock()
			all.Go(func() { m.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		m.mu.Lock()
		for _, c := range m.conns {
			_ = c.Close()
		}
		m.mu.Unlock()
		all.Wait()
	})
	return m
}

func (m *zeroMeter) serve(c net.Conn) {
	request := make([]byte, 12)
	for {
		if _, err := io.ReadFull(c, request); err != nil {
			return
		}
		m.mu.Lock()
		m.asked++
		m.mu.Unlock()
		n := 2 * int(binary.BigEndian.Uint16(request[10:]))
		answer := append([]byte(nil), request[:4]...)
		answer = append(binary.BigEndian.AppendUint16(answer, uint16(3+n)), request[6], request[7], byte(n))
		if _, err := c.Write(append(answer, make([]byte, n)...)); err != nil {
			return
		}
	}
}

func (m *zeroMeter) requests() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

func (m *zeroMeter) connections() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.conns)
}

// site is an agent in this process.
type site struct {
	program string // gridgate with failpoints, once it is built
	t       *testing.T
	dir     string
	broker  string
	agent   *Agent
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &site{t: t, dir: dir, broker: fmt.Sprintf("127.0.0.1:%d", proctest.FreePorts(t, 1))}
}

// config gives a configuration with these meters, a line of YAML each, and
// with name as the site.
func (s *site) config(name string, meters ...string) *configs.Config {
	s.t.Helper()
	text := fmt.Sprintf(`version: 1
site: %s
gateway: gw1
buffer: {path: %s}
control: {socket: %s}
intake: {window: 50ms}
uplink: {broker: "tcp://%s", start_jitter: 0s}
groups:
  fast: {lane: instant, every: 1s, channels: [1-0:32.7.0]}
  slow: {lane: instant, every: 2s, channels: [1-0:32.7.0]}
meters:
  - %s
`, name, filepath.Join(s.dir, "buffer"), filepath.Join(s.dir, "c"), s.broker, strings.Join(meters, "\n  - "))
	path := filepath.Join(s.dir, "gridgate.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	cfg, err := configs.Load(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return cfg
}

func modbusMeter(id, address, group string) string {
	return fmt.Sprintf(`{id: %s, groups: [%s], url: "modbus+tcp://%s?unit=1&model=eastron-sdm630"}`, id, group, address)
}

// make makes the agent.
func (s *site) make(cfg *configs.Config) {
	s.t.Helper()
	var err error
	if s.agent, err = New(cfg, Options{Version: "test", Log: slog.New(slog.DiscardHandler), Getenv: os.Getenv}); err != nil {
		s.t.Fatal(err)
	}
}

// run runs the agent until the test ends.
func (s *site) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.agent.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
}

func (s *site) meter(id string) status.Meter {
	for _, m := range s.agent.Report().Meters {
		if m.Meter == id {
			return m
		}
	}
	return status.Meter{}
}

// visited waits until each meter was visited n times more.
func (s *site) visited(n uint64, ids ...string) {
	s.t.Helper()
	before := make(map[string]uint64)
	for _, id := range ids {
		before[id] = s.meter(id).Visits
	}
	for _, id := range ids {
		proctest.Until(s.t, id+" is visited", func() bool { return s.meter(id).Visits >= before[id]+n })
	}
}

func (s *site) poller(key string) *poll.Poller {
	s.agent.mu.Lock()
	defer s.agent.mu.Unlock()
	if l, ok := s.agent.lines[key]; ok {
		return l.poller
	}
	return nil
}

func TestApplyRestartsWhatChangedAndNothingElse(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	same, other, gone, added := startZeroMeter(t), startZeroMeter(t), startZeroMeter(t), startZeroMeter(t)
	s.make(s.config("here", modbusMeter("same", same.address, "fast"), modbusMeter("other", other.address, "fast"), modbusMeter("gone", gone.address, "fast")))
	s.run()
	s.visited(2, "same", "other", "gone")
	kept, changed, visits := s.poller(same.address), s.poller(other.address), s.meter("same").Visits

	next := s.config("here", modbusMeter("added", added.address, "fast"), modbusMeter("other", other.address, "slow"), modbusMeter("same", same.address, "fast"))
	if err := s.agent.Apply(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if s.poller(same.address) != kept {
		t.Error("the line that did not change has another poller")
	}
	if p := s.poller(other.address); p == changed || p == nil {
		t.Error("the line that changed has the poller that it had")
	}
	if s.poller(gone.address) != nil {
		t.Error("the line that is gone is polled")
	}
	s.visited(1, "same", "other", "added")
	if n := s.meter("same").Visits; n <= visits {
		t.Errorf("%d visits of the unchanged meter, %d before the change", n, visits)
	}
	if a, b := same.connections(), other.connections(); a != 1 || b != 2 {
		t.Errorf("the unchanged meter saw %d connections, the changed one %d: want 1 and 2", a, b)
	}

	kept, changed = s.poller(same.address), s.poller(other.address)
	wrong := s.config("elsewhere", modbusMeter("other", other.address, "fast"))
	if err := s.agent.Apply(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "site can only change with a restart") {
		t.Errorf("another site: %v", err)
	}
	if s.poller(same.address) != kept || s.poller(other.address) != changed || s.poller(added.address) == nil || s.agent.Report().Site != "here" {
		t.Error("a refused configuration was applied in part")
	}
	s.visited(1, "same", "other", "added")
}

func TestApplyBeforeRunIsWhatRuns(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first, second := startZeroMeter(t), startZeroMeter(t)
	s.make(s.config("here", modbusMeter("first", first.address, "fast")))
	if err := s.agent.Apply(t.Context(), s.config("here", modbusMeter("second", second.address, "fast"))); err != nil {
		t.Error(err)
	}
	s.run()
	s.visited(1, "second")
	if first.connections() != 0 {
		t.Error("the configuration before the change runs")
	}
}

// TestApplyTriesAMeterAgainThatCouldNotBeOpened: a password file that becomes
// readable need not become newer.
func TestApplyTriesAMeterAgainThatCouldNotBeOpened(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	password, date := filepath.Join(s.dir, "password"), time.Now().Add(-time.Hour)
	put := func(err error) {
		t.Helper()
		if err == nil {
			err = os.Chtimes(password, date, date)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(os.Mkdir(password, 0o700))
	cfg := s.config("here", fmt.Sprintf(`{id: m, groups: [fast], url: "dlms+wrapper://%s?client=17&auth=lls&password=file:%s"}`, s.broker, password))
	s.make(cfg)
	s.run()
	proctest.Until(t, "the password is missed", func() bool { return strings.Contains(s.meter("m").Error, "password") })
	if err := os.Remove(password); err != nil {
		t.Fatal(err)
	}
	put(os.WriteFile(password, []byte("12345678"), 0o600))
	if err := s.agent.Apply(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if e := s.meter("m").Error; strings.Contains(e, "password") {
		t.Error(e)
	}
}

// TestADamagedBufferBeginsAnewWhileTheAgentRuns overwrites the file under the
// running agent.
func TestADamagedBufferBeginsAnewWhileTheAgentRuns(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	l, err := net.Listen("tcp", s.broker)
	if err != nil {
		t.Fatal(err)
	}
	var broker mqtttest.Memory
	served := make(chan struct{})
	go func() { defer close(served); broker.Serve(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		broker.CloseAll()
		<-served
	})
	m := startZeroMeter(t)
	s.make(s.config("here", modbusMeter("m", m.address, "fast")))
	s.run()
	delivered := func() bool { return s.agent.Report().Uplink.Rows > 0 }
	proctest.Until(t, "rows are delivered", delivered)
	epoch, poller := s.agent.Report().Epoch, s.poller(m.address)

	f, err := os.OpenFile(filepath.Join(s.dir, "buffer", "readings.db"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	junk := make([]byte, st.Size()-8192) // all but the two meta pages
	for i := range junk {
		junk[i] = 0xA5
	}
	if _, err := f.WriteAt(junk, 8192); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	proctest.Until(t, "a new epoch begins", func() bool { return s.agent.Report().Epoch != epoch })
	proctest.Until(t, "rows of the new epoch are delivered", delivered)
	r := s.agent.Report()
	if s.poller(m.address) != poller || m.connections() != 1 || r.Intake.Dropped != 0 {
		t.Errorf("polling was disturbed: %d connections, %+v", m.connections(), r.Intake)
	}
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "readings.db.damaged-") || !strings.Contains(notes, "lost=") {
		t.Errorf("notes %q", notes)
	}
	// The alarm is stored with what was salvaged, before anything else.
	span, err := s.agent.store.Peek(meter.Alarm, 0, 1)
	if err != nil || len(span.Rows) != 1 || span.Rows[0].Channel != EventBufferDamaged || span.Rows[0].Meter != "gw1" {
		t.Errorf("the fog is told %+v, %v", span, err)
	}
	if _, err := buffer.Inspect(filepath.Join(s.dir, "buffer")); err == nil {
		t.Error("the agent does not hold the new buffer")
	}
}

// TestAStopIsInTimeWhileLinesAreLent: each meter may take a second to let go of
// its session, and none can while a tool has the line.
func TestAStopIsInTimeWhileLinesAreLent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{log: slog.New(slog.DiscardHandler), failed: make(chan error, 1)}
		lines := make(map[string]*runningLine)
		for i := range 3 {
			l := line.Of("lent", nil)
			giveBack, err := l.Lend(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer giveBack()
			closeMeter := func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_ = l.Do(ctx, line.Settings{}, func(context.Context, line.Port) error { return nil })
			}
			lines[fmt.Sprint(i)] = &runningLine{line: l, task: a.start(t.Context(), "line", func(ctx context.Context) error {
				<-ctx.Done()
				for range 20 {
					closeMeter()
				}
				return nil
			})}
		}
		began := time.Now()
		stopLines(lines)
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("the lines stopped in %v", took)
		}
	})
}
