package dlmstest

import (
	"context"
	"io"
	"sync"
	"time"
)

// Line is a stream as slow as a real line: octets take their time on it in
// both directions, and the meter takes its own before it answers. Reads and
// writes may be concurrent. The waits end with an error when the context does.
type Line struct {
	ctx        context.Context //nolint:containedctx // Read and Write have none
	stream     io.ReadWriter
	turnaround time.Duration
	// Bits is how many bits an octet takes; 0 is 10: a start bit, 8 of data
	// and parity, and a stop bit.
	Bits int

	mu    sync.Mutex
	baud  int
	heard bool // something since the last write
}

const (
	bitsOfOctet = 10
	// pieceTime is in what pieces a Line passes octets on.
	pieceTime = 20 * time.Millisecond
)

// NewLine gives a line at so many bit/s, 0 for no pace, whose meter answers
// turnaround after it was asked.
func NewLine(ctx context.Context, stream io.ReadWriter, baud int, turnaround time.Duration) *Line {
	return &Line{ctx: ctx, stream: stream, baud: baud, turnaround: turnaround}
}

// SetBaud changes the rate.
func (l *Line) SetBaud(baud int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.baud = baud
}

// octets gives how long so many octets take, and how many go in a piece.
func (l *Line) octets(n int) (took time.Duration, piece int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.baud <= 0 {
		return 0, n
	}
	per := l.Bits
	if per == 0 {
		per = bitsOfOctet
	}
	took = time.Duration(n*per) * time.Second / time.Duration(l.baud)
	return took, max(1, int(pieceTime*time.Duration(l.baud)/time.Duration(per)/time.Second))
}

func (l *Line) wait(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	}
}

// Read gives octets once they would have come.
func (l *Line) Read(b []byte) (int, error) {
	n, err := l.stream.Read(b)
	if n > 0 {
		took, _ := l.octets(n)
		if werr := l.wait(took); werr != nil {
			return 0, werr
		}
		l.mu.Lock()
		l.heard = true
		l.mu.Unlock()
	}
	return n, err
}

// Write passes octets on as fast as the line does.
func (l *Line) Write(b []byte) (int, error) {
	l.mu.Lock()
	answers := l.heard
	l.heard = false
	l.mu.Unlock()
	if answers {
		if err := l.wait(l.turnaround); err != nil {
			return 0, err
		}
	}
	for done := 0; done < len(b); {
		_, piece := l.octets(len(b) - done)
		piece = min(piece, len(b)-done)
		took, _ := l.octets(piece)
		if err := l.wait(took); err != nil {
			return done, err
		}
		n, err := l.stream.Write(b[done : done+piece])
		done += n
		if err != nil {
			return done, err
		}
	}
	return len(b), nil
}
