package modbus

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goburrow/modbus"

	"gridgate/drivers/drivertest"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// hundred is a map of 100 registers that one request can read, of a meter that
// wants 5 ms of silence before a request.
func hundred() *Model {
	m := &Model{Name: "hundred", Holes: true, Turnaround: 5 * time.Millisecond}
	for i := range uint16(50) {
		m.Registers = append(m.Registers, Register{Channel: channelAt(2 * i), Function: 4, Address: 2 * i, Type: U32})
	}
	return m
}

// fast is the line that they are read on, and ideal how long it is busy with a
// visit that reads them: the silence, the request and the answer.
var fast = line.Settings{Baud: 115200}

func ideal() time.Duration {
	return time.Duration(requestLen+answerLen(100))*fast.CharTime() + hundred().Turnaround
}

// In simulated time nothing is added to what the wire and the meter need.
func TestTimeOfAHundredRegisters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &badWire{char: fast.CharTime(), trouble: func(w *badWire, _, answer []byte) { w.put(0, answer) }}
		m := New(Config{ID: "m", Unit: 1, Transport: RTU, Settings: fast, Model: hundred(), Now: clock()}, closing(t, w.line()))
		for i := range 10 {
			begin := time.Now()
			got, err := m.Visit(t.Context(), ask())
			if err != nil || len(got.Rows) != 50 || w.requests != i+1 {
				t.Fatalf("%d rows in %d requests, %v", len(got.Rows), w.requests, err)
			}
			took := time.Since(begin)
			if i == 9 {
				t.Logf("%v, ideal %v: × %.4f", took, ideal(), float64(took)/float64(ideal()))
			}
			if float64(took) > 1.15*float64(ideal()) {
				t.Errorf("took %v, the wire and the meter need %v", took, ideal())
			}
		}
	})
}

// paced answers requests on a pseudo-terminal at the pace of a wire.
func paced(b *testing.B) (path string) {
	b.Helper()
	tty, err := drivertest.Pty()
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	b.Cleanup(func() { _ = tty.Close(); <-done })
	go func() {
		defer close(done)
		var in []byte
		buf := make([]byte, 64)
		for {
			n, err := tty.Read(buf)
			if err != nil {
				return
			}
			in = append(in, buf[:n]...)
			for len(in) >= requestLen {
				at := time.Now().Add(requestLen * fast.CharTime())
				answer := (&rig{}).answer(in[:requestLen])
				in = in[requestLen:]
				for part := range slices.Chunk(answer, 32) {
					at = at.Add(time.Duration(len(part)) * fast.CharTime())
					idle(time.Until(at))
					if _, err := tty.Write(part); err != nil {
						return
					}
				}
			}
		}
	}()
	return tty.Path
}

// 100 registers at 115200 baud, on a pseudo-terminal at the pace of the wire:
// how many times what wire and meter need it takes, here and with the library's
// own handler.
func BenchmarkHundredRegisters(b *testing.B) {
	ratio := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(ideal()), "×ideal")
	}
	b.Run("gridgate", func(b *testing.B) {
		l := line.Serial(paced(b), line.Options{LockDir: b.TempDir()})
		defer func() { _ = l.Close() }()
		m := New(Config{ID: "m", Unit: 1, Transport: RTU, Settings: fast, Model: hundred(), Now: clock()}, l)
		ask := meter.Ask{Groups: []meter.Group{{Lane: meter.Instant}}}
		if _, err := m.Visit(b.Context(), ask); err != nil { // opens the port
			b.Fatal(err)
		}
		for b.Loop() {
			if got, err := m.Visit(b.Context(), ask); err != nil || len(got.Rows) != 50 {
				b.Fatal(len(got.Rows), err)
			}
		}
		ratio(b)
	})
	b.Run("goburrow", func(b *testing.B) {
		handler := modbus.NewRTUClientHandler(paced(b))
		handler.BaudRate, handler.DataBits, handler.Parity, handler.StopBits = fast.Baud, 8, "N", 1
		handler.SlaveId, handler.Timeout = 1, 2*time.Second
		defer func() { _ = handler.Close() }()
		client := modbus.NewClient(handler)
		if _, err := client.ReadInputRegisters(0, 100); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if got, err := client.ReadInputRegisters(0, 100); err != nil || len(got) != 200 {
				b.Fatal(len(got), err)
			}
		}
		ratio(b)
	})
}
