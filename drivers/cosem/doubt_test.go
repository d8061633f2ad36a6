package cosem

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/internal/meter"
)

// TestWhatMayBeARefusal: what meters do that say nothing of a wrong password may
// be a refusal, and what a line does is none.
func TestWhatMayBeARefusal(t *testing.T) {
	t.Parallel()
	// A refusal for good, without a reason, and one for now.
	const without = "\x00\x19\x61\x17\xA1\x09\x06\x07\x60\x85\x74\x05\x08\x01\x01\xA2\x03\x02\x01\x01\xA3\x05\xA1\x03\x02\x01\x01"
	forNow := strings.Replace(without, "\xA2\x03\x02\x01\x01", "\xA2\x03\x02\x01\x02", 1)
	md5 := Config{Client: 2, Auth: AuthMD5, Password: dlms.Secret("secret-2")}
	lls := Config{Client: 20, Auth: AuthLLS, Password: dlms.Secret("12345678")}
	silence := func(from byte) func(*rig) func(_, _ []byte) []byte {
		return func(*rig) func(request, frame []byte) []byte {
			return func(request, frame []byte) []byte {
				if request[0] == from {
					return nil
				}
				return frame
			}
		}
	}
	answer := func(apdu string) func(*rig) func(_, _ []byte) []byte {
		return func(*rig) func(request, frame []byte) []byte {
			return func(_, frame []byte) []byte { return append(frame[:6:6], apdu...) }
		}
	}
	hangUp := func(from byte) func(*rig) func(_, _ []byte) []byte {
		return func(r *rig) func(request, frame []byte) []byte {
			return func(request, frame []byte) []byte {
				if request[0] != from {
					return frame
				}
				for _, c := range r.conns { // the rig is locked
					c.Close()
				}
				return nil
			}
		}
	}
	for title, c := range map[string]struct {
		cfg    Config
		tamper func(*rig) func(request, frame []byte) []byte
		doubt  bool
		words  string
	}{
		"silence at the proof":           {md5, silence(0xC3), true, "to the proof of auth=md5, and before it client 2 was answered (wrong password? Or did the line fail?)"},
		"hang-up at the proof":           {md5, hangUp(0xC3), true, "the meter hung up at the proof of auth=md5, and before it client 2 was answered (wrong password? Or did the line fail?)"},
		"silence at the start":           {md5, silence(0x60), false, "is the meter on, does it know client 2 and server 1?"},
		"hang-up at the start":           {md5, hangUp(0x60), false, "the meter hung up"},
		"silence later":                  {md5, silence(0xC0), false, "no answer"},
		"password refused without words": {lls, answer(without), true, "does it know this client, is the password right?"},
		"password refused for now":       {lls, answer(forNow), false, "rejected for now"},
		"challenge refused":              {md5, answer(without), false, "does it know this client?"}, // it has seen no secret
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, securedMeter(t))
			r.spoil(c.tamper(r))
			cfg := c.cfg
			cfg.Timeout = 300 * time.Millisecond
			_, err := r.driver(t, cfg).Visit(t.Context(), registers(t, "1-0:1.8.0"))
			var doubt interface{ MayBeRefusal() bool }
			if got := errors.As(err, &doubt) && doubt.MayBeRefusal(); got != c.doubt || errors.Is(err, meter.ErrAuthentication) {
				t.Errorf("may be a refusal: %v, want %v: %v", got, c.doubt, err)
			}
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v: want %q", err, c.words)
			}
		})
	}
}
