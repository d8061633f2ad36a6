package bundle

import (
	"bytes"
	"sync"
)

// Ring is a writer that keeps the last lines of a log. The zero value is one of
// DefaultRing octets. It is safe for concurrent use.
type Ring struct {
	Size int // in octets; 0 is DefaultRing

	mu   sync.Mutex
	text []byte
}

// DefaultRing is some 250 lines.
const DefaultRing = 48 << 10

// Write takes lines. It gives no error.
func (r *Ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := r.Size
	if size == 0 {
		size = DefaultRing
	}
	r.text = append(r.text, p...)
	if over := len(r.text) - size; over > 0 {
		if end := bytes.IndexByte(r.text[over:], '\n'); end >= 0 {
			over += end + 1
		}
		r.text = append(r.text[:0], r.text[over:]...)
	}
	return len(p), nil
}

// String gives the last lines, each of them whole. A nil ring has none.
func (r *Ring) String() string {
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.text)
}
