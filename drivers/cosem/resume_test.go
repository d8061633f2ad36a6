package cosem

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

// whole is a visit with something of all, and what comes of it.
func whole(t *testing.T, at time.Time) (meter.Ask, []dlmstest.Object) {
	t.Helper()
	ask := since(t, at)
	ask.Groups = append(registers(t, "1-0:1.8.0", "1-0:9.9.9", "thd.l1", "1-0:16.7.0").Groups, registers(t, "1-0:1.8.0", "1-0:32.7.0").Groups...)
	ask.Groups[0].Lane, ask.Clock = meter.Billing, true
	return ask, append(objects("A1"), dlmstest.Profile(obisOf(load), columns(), 900, stored(at, start(), nil)))
}

// asIfWhole says what is wrong with what a visit gave.
func asIfWhole(got, want meter.Got) error {
	line := func(got meter.Got) (lines []string) {
		for _, r := range got.Rows {
			lines = append(lines, fmt.Sprintf("%v %d %s %v/%d", r.Lane, r.Stamp.Time, r.Channel, r.Value, r.Occurrence))
		}
		for _, f := range got.Failures {
			lines = append(lines, f.Error())
		}
		slices.Sort(lines)
		return lines
	}
	if a, b := line(got), line(want); !slices.Equal(a, b) {
		return fmt.Errorf("%d lines, want %d: %q, want %q", len(a), len(b), a, b)
	}
	if !slices.Equal(got.Cursors, want.Cursors) || got.Clock == nil || got.Identity != want.Identity {
		return fmt.Errorf("%+v", got)
	}
	return nil
}

// TestLostWithinAVisit: a meter that forgets the association, whenever it does,
// is read to the end, each thing once, on a new one.
func TestLostWithinAVisit(t *testing.T) {
	t.Parallel()
	at := start().Add(-500 * quarter) // more than a page
	ask, all := whole(t, at)
	for _, lists := range []bool{false, true} {
		o := dlmstest.Options{Objects: all}
		if lists {
			o = listing(all...)
			o.Objects = all
		}
		for _, way := range []string{"exception", "hang-up", "FRMR"} {
			t.Run(fmt.Sprintf("%s, lists %t", way, lists), func(t *testing.T) {
				t.Parallel()
				var want meter.Got
				for n := -1; n < 60; n++ {
					var asked, times atomic.Int32
					var r *rig
					forgotten := false
					r = newRig(t, o)
					cfg := Config{}
					if way == "FRMR" {
						r.serve = func(stream io.ReadWriter) error {
							return dlmstest.NewMeter(o).ServeHDLC(stream, dlmstest.Station{MaxInfo: 2030, Rejects: func() bool { return int(asked.Add(1)) == n+1 }})
						}
						cfg.HDLC = &HDLC{}
					}
					r.spoil(func(request, frame []byte) []byte {
						if name(request) == "associate" {
							forgotten = false
							times.Add(1)
						}
						if int(asked.Add(1)) == n+1 {
							forgotten = true
						}
						switch {
						case forgotten && way == "hang-up":
							forgotten = false
							for _, c := range r.conns {
								c.Close()
							}
							return nil
						case forgotten:
							return append(frame[:6:6], 0, 3, 0xD8, 1, 1)
						}
						return frame
					})
					got, err := r.driver(t, cfg).Visit(t.Context(), ask)
					if n < 0 {
						if want = got; err != nil || len(got.Rows) != 4+499 || len(got.Failures) != 2 || got.Clock == nil {
							t.Fatalf("%v, %s", err, describe(got))
						}
						continue
					}
					if int(asked.Load()) <= n {
						if n < 8 {
							t.Errorf("%d questions", n)
						}
						return
					}
					if n < 3 { // not associated, or not known who it is
						continue
					}
					if wrong := asIfWhole(got, want); err != nil || wrong != nil {
						t.Errorf("lost at question %d: %v, %v", n, err, wrong)
					}
				}
			})
		}
	}
}

// TestNotAllowedIsNotLost: where one attribute is not allowed, the association
// is there.
func TestNotAllowedIsNotLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, dlmstest.Options{Objects: objects("A1")})
	m := r.driver(t, Config{})
	r.spoil(func(request, frame []byte) []byte {
		if strings.Contains(name(request), "-0:1.8.0") || strings.Contains(name(request), "-0:2.8.0") {
			return append(frame[:6:6], 0, 3, 0xD8, 1, 1)
		}
		return frame
	})
	got, err := m.Visit(t.Context(), registers(t, "1-0:16.7.0", "1-0:1.8.0", "1-0:2.8.0", "1-0:32.7.0"))
	if err != nil || len(got.Rows) != 2 || len(got.Failures) != 2 {
		t.Errorf("%v, %s", err, describe(got))
	}
	if asked := r.asked(); !isList(asked, "associate", "0-0:96.1.0*255/1:2", "1-0:16.7.0*255/3:2", "1-0:16.7.0*255/3:3", "1-0:1.8.0*255/3:2",
		"1-0:16.7.0*255/3:3", "1-0:2.8.0*255/3:2", "1-0:32.7.0*255/3:2", "1-0:32.7.0*255/3:3") {
		t.Errorf("asked %q", asked)
	}
}

// TestLostToAnotherMeter: what another meter says does not go on with what the
// first has said.
func TestLostToAnotherMeter(t *testing.T) {
	t.Parallel()
	var serial atomic.Pointer[string]
	first, second := "A1", "B2"
	serial.Store(&first)
	r := newRig(t, dlmstest.Options{Objects: append(objects(""), dlmstest.Data(obisOf("0-0:96.1.0"), func() axdr.Value { return axdr.OctetString(*serial.Load()) }))})
	m := r.driver(t, Config{})
	r.spoil(func(request, frame []byte) []byte {
		if name(request) == "1-0:16.7.0*255/3:2" && *serial.Load() == first {
			serial.Store(&second)
			for _, c := range r.conns {
				c.Close()
			}
		}
		return frame
	})
	got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0", "1-0:16.7.0"))
	if !errors.Is(err, errOther) || len(got.Rows) != 1 || got.Rows[0].Serial != "A1" || got.Identity.Found != "A1" {
		t.Errorf("%v, %s", err, describe(got))
	}
	if got, err = m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 || got.Rows[0].Serial != "B2" {
		t.Errorf("%v, %s", err, describe(got))
	}
}

// TestRejected: a frame that the meter rejects, be it of the counter's reading,
// of the association or of its proof, is no word about keys and objects. The
// visit goes on, on a new connection, once.
func TestRejected(t *testing.T) {
	t.Parallel()
	for _, client := range []uint16{1, 2} { // GMAC, which reads the counter first; MD5
		for n := range 10 {
			for _, always := range []bool{false, true} {
				t.Run(fmt.Sprintf("client %d, frame %d, always %t", client, n+1, always), func(t *testing.T) {
					t.Parallel()
					o := securedMeter(t)
					var asked atomic.Int32
					r := &rig{serve: func(stream io.ReadWriter) error {
						return dlmstest.NewMeter(o).ServeHDLC(stream, dlmstest.Station{Rejects: func() bool {
							at := int(asked.Add(1))
							return at == n+1 || always && at > n
						}})
					}}
					r.listen(t)
					cfg := secured(t, func(c *Config) { c.HDLC = &HDLC{} })
					if client == 2 {
						cfg = Config{Client: 2, Auth: AuthMD5, Password: dlms.Secret("secret-2"), HDLC: &HDLC{}}
					}
					got, err := r.driver(t, cfg).Visit(t.Context(), registers(t, "1-0:1.8.0"))
					if !always && (err != nil || len(got.Rows) != 1) {
						t.Fatalf("%v, %s", err, describe(got))
					}
					if !always || int(asked.Load()) <= n {
						return
					}
					var doubt interface{ MayBeRefusal() bool }
					if !errors.Is(err, meter.ErrGarbled) || errors.Is(err, meter.ErrAuthentication) || errors.As(err, &doubt) ||
						strings.Contains(err.Error(), "ic=") || strings.Contains(err.Error(), "wrong") {
						t.Error(err)
					}
				})
			}
		}
	}
}
