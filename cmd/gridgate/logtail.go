package main

import "sync"

// logTail keeps the last lines of the log, for a support bundle.
type logTail struct {
	mu   sync.Mutex
	ring []byte
	at   int // where the oldest octet is, once it is full
}

const logTailSize = 64 << 10

func (t *logTail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(b)
	if b = b[max(0, n-logTailSize):]; len(t.ring)+len(b) <= logTailSize {
		t.ring = append(t.ring, b...)
		return n, nil
	}
	if room := logTailSize - len(t.ring); room > 0 {
		t.ring = append(t.ring, b[:room]...)
		b = b[room:]
	}
	for len(b) > 0 {
		k := copy(t.ring[t.at:], b)
		t.at, b = (t.at+k)%logTailSize, b[k:]
	}
	return n, nil
}

// Tail gives the last whole lines.
func (t *logTail) Tail() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := append(append([]byte(nil), t.ring[t.at:]...), t.ring[:t.at]...)
	if len(t.ring) < logTailSize {
		return all
	}
	for i, c := range all {
		if c == '\n' {
			return all[i+1:]
		}
	}
	return nil
}
