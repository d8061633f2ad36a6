package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"gridgate/agent/poll"
	"gridgate/configs"
	"gridgate/drivers/drivertest"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// pacedUnits are units on a pseudo-terminal, at the pace of the wire.
type pacedUnits struct {
	tty    *drivertest.Terminal
	char   time.Duration
	answer func([]byte) ([]byte, time.Duration)

	mu   sync.Mutex
	busy time.Duration // of the wire with those who answer
}

func (p *pacedUnits) serve() {
	const request, piece = 8, 8
	var in []byte
	buf := make([]byte, 64)
	for {
		n, err := p.tty.Read(buf)
		if err != nil {
			return
		}
		for in = append(in, buf[:n]...); len(in) >= request; in = in[request:] {
			at := time.Now()
			p.mu.Lock()
			reply, after := p.answer(in[:request])
			if reply != nil {
				p.busy += time.Duration(request+len(reply))*p.char + after
			}
			p.mu.Unlock()
			at = at.Add(request*p.char + after)
			for part := range slices.Chunk(reply, piece) {
				at = at.Add(time.Duration(len(part)) * p.char)
				<-time.NewTimer(time.Until(at)).C
				if _, err := p.tty.Write(part); err != nil {
					return
				}
			}
		}
	}
}

// BenchmarkCycle is TestDeadMetersHoldUpNobody on a real pseudo-terminal whose
// other end keeps the pace of the wire: ×wire is how many times what wire and
// living meters need a cycle takes, without the time-outs of the dead.
func BenchmarkCycle(b *testing.B) {
	settings := line.Settings{Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1}
	model, err := configs.Model("eastron-sdm630")
	if err != nil {
		b.Fatal(err)
	}
	tty, err := drivertest.Pty()
	if err != nil {
		b.Fatal(err)
	}
	asked := map[byte]int{}
	p := &pacedUnits{tty: tty, char: settings.CharTime(), answer: units(isDeadUnit, asked)}
	served := make(chan struct{})
	go func() { defer close(served); p.serve() }()
	l := line.Serial(tty.Path, line.Options{LockDir: b.TempDir()})
	now := func() meter.Stamp { return meter.Stamp{Time: time.Now().UnixMilli()} }
	sink := &cycleSink{rows: map[meter.ID]int{}}
	poller := poll.New(poll.Config{
		Line: tty.Path, Meters: modbusMeters(settings, model, l, now), Sink: sink, Memory: noMemory{}, Now: now,
		Log: slog.New(slog.DiscardHandler), Serial: true,
	})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- poller.Run(ctx) }()
	cycles := func() int { // that every living unit had
		sink.mu.Lock()
		defer sink.mu.Unlock()
		least := math.MaxInt
		for unit := byte(1); unit <= cycleUnits; unit++ {
			if !isDeadUnit(unit) {
				least = min(least, sink.rows[meter.ID(fmt.Sprint("m-", unit))]/3)
			}
		}
		return least
	}
	spent := func() (busy time.Duration, timeouts int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for unit, n := range asked {
			if isDeadUnit(unit) {
				timeouts += n
			}
		}
		return p.busy, timeouts
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	reach := func(n int) {
		for cycles() < n {
			<-tick.C
		}
	}
	reach(1)
	b.ResetTimer()
	busy, timeouts := spent()
	reach(1 + b.N)
	b.StopTimer()
	busyThen, timeoutsThen := spent()
	busy, timeouts = busyThen-busy, timeoutsThen-timeouts
	b.ReportMetric(float64(b.Elapsed()-time.Duration(timeouts)*cycleTimeout)/float64(busy), "×wire")
	b.ReportMetric(float64(timeouts)/float64(b.N), "timeouts/op")
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
	if err := l.Close(); err != nil {
		b.Error(err)
	}
	if err := tty.Close(); err != nil {
		b.Error(err)
	}
	<-served
}
