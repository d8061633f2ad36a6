package dlms_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"gridgate/dlms"
	"gridgate/dlms/dlmstest"
)

// deafFor is a transport that loses the first answers to each kind of request.
type deafFor struct {
	session *dlmstest.Session
	loses   int
	sent    []byte // tags
	answers [][]byte
	lost    map[byte]int
}

func (d *deafFor) Send(_ context.Context, apdu []byte) error {
	d.sent = append(d.sent, apdu[0])
	d.answers = nil
	if d.lost[apdu[0]]++; d.lost[apdu[0]] > d.loses {
		d.answers = d.session.Answer(16, apdu)
	}
	return nil
}

func (d *deafFor) Receive(_ context.Context, b []byte) ([]byte, error) {
	if len(d.answers) == 0 {
		return b, os.ErrDeadlineExceeded
	}
	b = append(b, d.answers[0]...)
	d.answers = d.answers[1:]
	return b, nil
}

// TestRepeats: a request is sent again as often as is said, and no more.
func TestRepeats(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		repeats uint8
		loses   int
		ok      bool
	}{{0, 1, true}, {0, 2, false}, {3, 3, true}, {3, 4, false}} {
		d := &deafFor{session: dlmstest.NewMeter(dlmstest.Options{Name: "GRG1"}).NewSession(), loses: tt.loses, lost: map[byte]int{}}
		c := dlms.NewClient(d, dlms.Options{Repeat: true, Repeats: tt.repeats})
		_, err := c.Associate(t.Context())
		tries := max(1, int(tt.repeats)) + 1
		want := fmt.Sprintf("sent %d times", tries)
		if tries == 2 {
			want = "sent twice"
		}
		if (err == nil) != tt.ok || !tt.ok && !strings.Contains(err.Error(), want) || len(d.sent) != min(tries, tt.loses+1) {
			t.Errorf("%+v: associate: %v, sent %x", tt, err, d.sent)
		}
		if err != nil {
			continue
		}
		d.sent = nil
		if _, err := c.Get(t.Context(), dlms.Attribute{Class: 15, Code: [6]byte{0, 0, 40, 0, 0, 255}, ID: 1}); err != nil || len(d.sent) != tt.loses+1 {
			t.Errorf("%+v: get: %v, sent %x", tt, err, d.sent)
		}
	}
}
