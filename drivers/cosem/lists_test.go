package cosem

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

// listing is a meter that grants all that reading takes.
func listing(o ...dlmstest.Object) dlmstest.Options {
	return dlmstest.Options{
		Objects: append(objects("A1"), o...),
		Clients: map[uint16]dlmstest.Login{16: {Conformance: dlmstest.Reading}},
	}
}

// isListRequest says whether a request names several attributes.
func isListRequest(request []byte) bool { return request[0] == 0xC0 && request[1] == 3 }

// lengths gives what the requests were since the last call: a GET of one as 1,
// of a list as how many it names, anything else as 0.
func lengths(t *testing.T, r *rig) (n []int) {
	t.Helper()
	for _, asked := range r.asked() {
		var list int
		if _, err := fmt.Sscanf(asked, " c003c%1x%02x", new(int), &list); err == nil {
			n = append(n, list)
			continue
		}
		n = append(n, strings.Count(asked, "*255/"))
	}
	return n
}

// TestRegistersByList reads values and scalers in one request, and values alone
// after that. One that fails costs the others nothing.
func TestRegistersByList(t *testing.T) {
	t.Parallel()
	r := newRig(t, listing())
	m := r.driver(t, Config{})
	ask := registers(t, "1-0:1.8.0", "1-0:9.9.9", "thd.l1", "1-0:16.7.0", "0-0:96.3.0", "1-0:32.7.0", "1-0:1.6.0", "1-0:1.6.0/4:5", "1-0:1.4.0", "1-0:1.4.0/5:3")
	want := "1234.5Wh -43.21W 230.1V 3210W 2026-03-28T12:00:00+00:00 500W 600W "
	for visit, requests := range []string{"[0 1 15]", "[10]", "[10]"} {
		got, err := m.Visit(t.Context(), ask)
		if err != nil || len(got.Failures) != 3 || !errors.Is(got.Failures[0], dlms.ObjectUndefined) ||
			!errors.Is(got.Failures[1], ErrNotCOSEM) || !errors.Is(got.Failures[2], errNotScalar) {
			t.Fatalf("%v, %s", err, describe(got))
		}
		if text := got.Failures[0].Error(); text != "1-0:9.9.9: get 1-0:9.9.9*255/3:2: object undefined" {
			t.Errorf("it says %q", text)
		}
		var text string
		for _, row := range got.Rows {
			text += row.Value.String() + row.Unit.String() + " "
		}
		if asked := fmt.Sprint(lengths(t, r)); text != want || asked != requests {
			t.Errorf("visit %d: %s; asked %s, want %s", visit, text, asked, requests)
		}
	}
}

// TestListsThatFail has the ways in which meters get lists wrong: every value
// is read all the same, with its own scaler, and never one for another.
func TestListsThatFail(t *testing.T) {
	t.Parallel()
	answer := func(frame []byte, apdu string) []byte {
		return append(frame[:6:6], "\x00"+string(rune(len(apdu)))+apdu...)
	}
	for title, c := range map[string]struct {
		cfg   Config
		spoil func(request, frame []byte) []byte
		again string // what the second visit asks
	}{
		"none by its model":  {Config{Quirks: dlms.Quirks{ListMax: 1}}, nil, "[1 1 1]"},
		"two by its model":   {Config{Quirks: dlms.Quirks{ListMax: 2}}, nil, "[2 1]"},
		"exception":          {Config{}, func(_, frame []byte) []byte { return answer(frame, "\xD8\x02\x02") }, "[1 1 1]"},
		"refused as a whole": {Config{}, func(request, frame []byte) []byte { return answer(frame, "\xC4\x01"+string(request[2:3])+"\x01\x03") }, "[1 1 1]"},
		"one answer less":    {Config{}, func(request, frame []byte) []byte { frame[11]--; return frame }, "[1 1 1]"},
		"one answer more":    {Config{}, func(request, frame []byte) []byte { frame[11]++; return frame }, "[1 1 1]"},
		"cut short": {Config{}, func(_, frame []byte) []byte {
			frame[7] -= 3
			return frame[:len(frame)-3]
		}, "[1 1 1]"},
		"nothing in it": {Config{}, func(request, frame []byte) []byte { return answer(frame, "\xC4\x03"+string(request[2:3])) }, "[1 1 1]"},
		"over two": {Config{}, func(request, frame []byte) []byte {
			if request[3] > 2 {
				return answer(frame, "\xD8\x01\x02")
			}
			return frame
		}, "[2 1]"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, listing())
			r.spoil(func(request, frame []byte) []byte {
				if isListRequest(request) && c.spoil != nil {
					return c.spoil(request, frame)
				}
				return frame
			})
			m := r.driver(t, c.cfg)
			for visit := range 2 {
				r.asked()
				got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0", "1-0:16.7.0", "1-0:1.6.0"))
				if err != nil || len(got.Rows) != 3 || got.Rows[0].Value.String() != "1234.5" ||
					got.Rows[1].Value.String() != "-43.21" || got.Rows[2].Value.String() != "3210" {
					t.Fatalf("visit %d: %v, %s", visit, err, describe(got))
				}
			}
			if asked := fmt.Sprint(lengths(t, r)); asked != c.again {
				t.Errorf("asked %s, want %s", asked, c.again)
			}
			// What was learnt is kept over connections.
			r.hangUp()
			if _, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0", "1-0:16.7.0", "1-0:1.6.0")); err != nil {
				t.Fatal(err)
			}
			if asked := lengths(t, r); asked[0] != 0 || fmt.Sprint(asked[2:]) != c.again {
				t.Errorf("on a new connection it asked %v, want [0 1] and %s", asked, c.again)
			}
		})
	}
}

// TestSilenceToLists: a meter that grants lists and does not answer them is
// asked one by one from the next visit on; one that did answer is not.
func TestSilenceToLists(t *testing.T) {
	t.Parallel()
	for title, proven := range map[string]bool{"never answered one": false, "answered one": true} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, listing())
			m := r.driver(t, Config{Timeout: 50 * time.Millisecond})
			ask := registers(t, "1-0:1.8.0", "1-0:16.7.0")
			if proven {
				if _, err := m.Visit(t.Context(), ask); err != nil {
					t.Fatal(err)
				}
			}
			r.spoil(func(request, frame []byte) []byte {
				if isListRequest(request) {
					return nil
				}
				return frame
			})
			if got, err := m.Visit(t.Context(), ask); !errors.Is(err, meter.ErrNoAnswer) || len(got.Rows) != 0 {
				t.Fatalf("%v, %s", err, describe(got))
			}
			got, err := m.Visit(t.Context(), ask)
			if (err == nil) == proven || (len(got.Rows) == 2) == proven {
				t.Errorf("%v, %s", err, describe(got))
			}
		})
	}
}

// TestAListIsNoMixture lets a meter answer to lists with values in another
// order or of another request: an answer that is not of this request is passed
// over, and what is no list of answers is not taken.
func TestAListIsNoMixture(t *testing.T) {
	t.Parallel()
	r := newRig(t, listing())
	var before atomic.Pointer[[]byte]
	r.spoil(func(request, frame []byte) []byte {
		if !isListRequest(request) {
			return frame
		}
		now := append([]byte(nil), frame...)
		if last := before.Swap(&now); last != nil {
			return append(append([]byte(nil), *last...), frame...) // late, and then what was asked for
		}
		return frame
	})
	m := r.driver(t, Config{})
	for _, ask := range [][]string{{"1-0:1.8.0", "1-0:16.7.0"}, {"1-0:16.7.0", "1-0:1.8.0"}, {"1-0:16.7.0", "1-0:1.4.0"}} {
		got, err := m.Visit(t.Context(), registers(t, ask...))
		if err != nil || len(got.Rows) != 2 {
			t.Fatalf("%v, %s", err, describe(got))
		}
		for i, row := range got.Rows {
			if want := map[string]string{"1-0:1.8.0": "1234.5", "1-0:16.7.0": "-43.21", "1-0:1.4.0": "500"}[ask[i]]; row.Value.String() != want || row.Channel.Short() != ask[i] {
				t.Errorf("%v, want %s", row, want)
			}
		}
	}
}

// TestRegistersByShortNames reads a meter that knows no other names.
func TestRegistersByShortNames(t *testing.T) {
	t.Parallel()
	o := listing()
	o.Clients[16] = dlmstest.Login{Conformance: dlmstest.ShortNames}
	r := newRig(t, o)
	r.spoil(nil)
	m := r.driver(t, Config{ShortNames: true})
	for range 2 {
		got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0", "1-0:9.9.9", "1-0:16.7.0"))
		if err != nil || len(got.Rows) != 2 || got.Rows[0].Value.String() != "1234.5" || got.Rows[1].Value.String() != "-43.21" ||
			len(got.Failures) != 1 || !errors.Is(got.Failures[0], dlms.ObjectUndefined) {
			t.Fatalf("%v, %s", err, describe(got))
		}
	}
}

// TestScalersOfWhatIsNotThere are not asked for.
func TestScalersOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	r := newRig(t, dlmstest.Options{Objects: objects("A1")}) // grants no lists
	got, err := r.driver(t, Config{}).Visit(t.Context(), registers(t, "1-0:9.9.9", "1-0:1.8.0"))
	if err != nil || len(got.Rows) != 1 {
		t.Fatalf("%v, %s", err, describe(got))
	}
	if asked := r.asked(); !isList(asked[2:], "1-0:9.9.9*255/3:2", "1-0:1.8.0*255/3:2", "1-0:1.8.0*255/3:3") {
		t.Errorf("asked %q", asked)
	}
}

// TestQuirksOfValues has what a model says of its numbers and times.
func TestQuirksOfValues(t *testing.T) {
	t.Parallel()
	ratio := func(e string, v axdr.Value) dlmstest.Object { return dlmstest.Data(obisOf("1-0:0.4."+e), fixed(v)) }
	for title, c := range map[string]struct {
		objects []dlmstest.Object
		quirks  dlms.Quirks
		want    string
		failed  int
	}{
		"none":           {nil, dlms.Quirks{}, "1234.5 -43.21 230.1 3210 2026-03-28T13:00:05+01:00 overflow:false", 0},
		"inverted":       {nil, dlms.Quirks{InvertDeviation: true}, "1234.5 -43.21 230.1 3210 2026-03-28T13:00:05-01:00 overflow:false", 0},
		"ratios":         {[]dlmstest.Object{ratio("2", axdr.LongUnsigned(200)), ratio("3", axdr.Unsigned(100)), ratio("5", axdr.Unsigned(5))}, dlms.Quirks{Ratios: true}, "4938000.0 -172840.00 23010.000610351562 12840000 2026-03-28T13:00:05+01:00 overflow:true", 0},
		"no ratios":      {nil, dlms.Quirks{Ratios: true}, "2026-03-28T13:00:05+01:00", 5},
		"not whole":      {[]dlmstest.Object{ratio("2", axdr.LongUnsigned(100)), ratio("3", axdr.Unsigned(1)), ratio("5", axdr.Unsigned(3))}, dlms.Quirks{Ratios: true}, "2026-03-28T13:00:05+01:00", 5},
		"ratio is text":  {[]dlmstest.Object{ratio("2", axdr.OctetString("5")), ratio("3", axdr.Unsigned(1))}, dlms.Quirks{Ratios: true}, "2026-03-28T13:00:05+01:00", 5},
		"no denominator": {[]dlmstest.Object{ratio("2", axdr.LongUnsigned(1)), ratio("3", axdr.Unsigned(1))}, dlms.Quirks{Ratios: true}, "1234.5 -43.21 230.10000610351562 3210 2026-03-28T13:00:05+01:00 overflow:false", 0},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, listing(c.objects...))
			got, err := r.driver(t, Config{Quirks: c.quirks}).Visit(t.Context(),
				registers(t, "1-0:1.8.0", "1-0:16.7.0", "1-0:32.7.0", "1-0:1.6.0", "0-0:1.0.0", "1-0:2.8.0"))
			if err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, row := range got.Rows {
				if row.Channel.Short() == "1-0:2.8.0" {
					words = append(words, fmt.Sprint("overflow:", row.Quality&meter.Overflow != 0 && row.Value.Kind == meter.None))
					continue
				}
				words = append(words, row.Value.String())
			}
			if s := strings.Join(words, " "); s != c.want || len(got.Failures) != c.failed {
				t.Errorf("%s, want %s; %v", s, c.want, got.Failures)
			}
		})
	}
}

// TestForgottenWhereListsAreAsked: a meter that has forgotten the association is
// not asked for halves of a list before it is associated with anew.
func TestForgottenWhereListsAreAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t, listing())
	m := r.driver(t, Config{})
	ask := registers(t, "1-0:1.8.0", "1-0:2.8.0", "1-0:16.7.0", "1-0:32.7.0", "1-0:1.6.0", "0-0:96.5.0", "1-0:0.2.0", "0-0:97.97.0")
	if _, err := m.Visit(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	forgotten := true
	r.spoil(func(request, frame []byte) []byte {
		if forgotten = forgotten && name(request) != "associate"; forgotten {
			return append(frame[:6:6], 0, 3, 0xD8, 1, 1)
		}
		return frame
	})
	r.asked()
	got, err := m.Visit(t.Context(), ask)
	if err != nil || len(got.Rows) != 8 || len(got.Failures) > 0 {
		t.Errorf("%v, %s", err, describe(got))
	}
	if asked := fmt.Sprint(lengths(t, r)); asked != "[8 1 0 1 8]" {
		t.Errorf("asked %s", asked)
	}
}
