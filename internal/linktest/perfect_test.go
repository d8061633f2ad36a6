package linktest

import (
	"testing"
	"testing/synctest"
	"time"
)

// A link without delay and limit delivers in the moment of the write, which in
// an outage must not be the moment at which its clock stands still.
func TestAPerfectLinkPassesNothingInAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{})
		near, far := l.Pipe()
		l.Set(BlackHole)
		if _, err := near.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := far.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if n, err := far.Read(b[:]); err == nil {
			t.Fatalf("%d bytes came through", n)
		}
		l.Set(Up)
		if err := far.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if n, err := far.Read(b[:]); n != 1 || err != nil {
			t.Fatalf("after the outage: %d bytes, %v", n, err)
		}
	})
}
