package cosem

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

func TestRegisters(t *testing.T) {
	t.Parallel()
	r := newRig(t, dlmstest.Options{Objects: objects("GRG1")})
	m := r.driver(t, Config{Serial: "GRG1"})
	got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0", "1-0:2.8.0", "1-0:16.7.0", "1-0:32.7.0", "1-0:1.6.0", "1-0:1.6.0/4:5",
		"1-0:1.4.0", "1-0:1.4.0/5:3", "0-0:1.0.0", "0-0:96.1.0", "0-0:97.97.0", "1-0:0.2.0", "0-0:96.5.0", "0-0:96.6.0"))
	if err != nil {
		t.Fatal(err)
	}
	if want := (meter.Identity{Want: "GRG1", Found: "GRG1", Proven: true}); got.Identity != want || len(got.Failures) != 0 {
		t.Errorf("got %s", describe(got))
	}
	want := []struct {
		kind       meter.Kind
		text, unit string
		quality    meter.Quality
	}{
		{meter.Uint, "1234.5", "Wh", 0},
		{meter.Uint, "18446744073709551615000", "Wh", 0},
		{meter.Int, "-43.21", "W", 0},
		{meter.Float32, "230.1", "V", 0},
		{meter.Uint, "3210", "W", 0},
		{meter.DateTime, "2026-03-28T12:00:00+00:00", "", 0},
		{meter.Uint, "500", "W", 0},
		{meter.Uint, "600", "W", 0},
		{meter.DateTime, "2026-03-28T13:00:05+01:00", "", 0},
		{meter.Text, "GRG1", "", 0},
		{meter.Octets, "4142", "", 0},
		{meter.Text, "v1.2", "", 0},
		{meter.Bool, "true", "", 0},
		{meter.None, "", "", meter.IntervalMissing},
	}
	if len(got.Rows) != len(want) {
		t.Fatalf("got %s", describe(got))
	}
	stamp := meter.Stamp{Time: start().UnixMilli(), Mono: start().UnixMilli() / 2, Boot: 7, Bound: 20}
	for i, w := range want {
		row := got.Rows[i]
		if row.Value.Kind != w.kind || row.Value.String() != w.text || row.Unit.String() != w.unit || row.Quality != w.quality ||
			row.Stamp != stamp || row.Serial != "GRG1" || row.Meter != "m1" || row.Lane != meter.Instant || row.Period != 0 {
			t.Errorf("row %d: %+v, want %+v", i, row, w)
		}
	}
}

func TestWhatWasReadOnceIsNotReadAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, dlmstest.Options{Objects: objects("GRG1")})
	clock := &turnable{at: start()}
	m := r.driver(t, Config{Now: clock.now})
	visit := func() []string {
		t.Helper()
		got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0", "1-0:1.4.0", "1-0:1.4.0/5:3"))
		if err != nil || len(got.Rows) != 3 || got.Rows[0].Value.String() != "1234.5" || !got.Identity.Proven {
			t.Fatalf("%v, %s", err, describe(got))
		}
		return r.asked()
	}
	values := []string{"1-0:1.8.0*255/3:2", "1-0:1.4.0*255/5:2", "1-0:1.4.0*255/5:3"}
	withScalers := []string{values[0], "1-0:1.8.0*255/3:3", values[1], "1-0:1.4.0*255/5:4", values[2]}
	if asked := visit(); !isList(asked, append([]string{"associate", "0-0:96.1.0*255/1:2"}, withScalers...)...) {
		t.Errorf("first visit asked %q", asked)
	}
	if asked := visit(); !isList(asked, values...) {
		t.Errorf("second visit asked %q", asked)
	}
	clock.turn(49 * time.Hour) // a day and a half of the monotonic clock
	if asked := visit(); !isList(asked, withScalers...) {
		t.Errorf("a day later it asked %q", asked)
	}
	r.hangUp()
	if asked := visit(); !isList(asked, append([]string{"associate", "0-0:96.1.0*255/1:2"}, values...)...) {
		t.Errorf("on a new connection it asked %q", asked)
	}
	if err := m.Close(); err != nil || !isList(r.asked(), "release") {
		t.Errorf("close: %v", err)
	}
	if asked := visit(); len(asked) != 5 || asked[0] != "associate" {
		t.Errorf("after close it asked %q", asked)
	}
}

func TestReleaseAfterEachVisit(t *testing.T) {
	t.Parallel()
	r := newRig(t, dlmstest.Options{Objects: objects("GRG1")})
	m := r.driver(t, Config{Release: true})
	for range 2 {
		if _, err := m.Visit(t.Context(), meter.Ask{}); err != nil {
			t.Fatal(err)
		}
		if asked := r.asked(); !isList(asked, "associate", "0-0:96.1.0*255/1:2", "release") {
			t.Errorf("asked %q", asked)
		}
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	name := func(v axdr.Value) dlmstest.Object { return dlmstest.Data(obisOf("0-0:42.0.0"), fixed(v)) }
	id := func(v axdr.Value) dlmstest.Object { return dlmstest.Data(obisOf("0-0:96.1.0"), fixed(v)) }
	for title, c := range map[string]struct {
		objects []dlmstest.Object
		serial  string
		want    meter.Identity
		quality meter.Quality
	}{
		"equal":               {[]dlmstest.Object{id(axdr.VisibleString("A1"))}, "A1", meter.Identity{Want: "A1", Found: "A1", Proven: true}, 0},
		"padded":              {[]dlmstest.Object{id(axdr.OctetString("A1 \x00"))}, "A1", meter.Identity{Want: "A1", Found: "A1", Proven: true}, 0},
		"another":             {[]dlmstest.Object{id(axdr.OctetString("A2"))}, "A1", meter.Identity{Want: "A1", Found: "A2"}, 0},
		"none configured":     {[]dlmstest.Object{id(axdr.OctetString("A2"))}, "", meter.Identity{Found: "A2", Proven: true}, 0},
		"number":              {[]dlmstest.Object{id(axdr.DoubleLongUnsigned(4711))}, "4711", meter.Identity{Want: "4711", Found: "4711", Proven: true}, 0},
		"octets":              {[]dlmstest.Object{id(axdr.OctetString("\x00\xAB\x01"))}, "00AB01", meter.Identity{Want: "00AB01", Found: "00AB01", Proven: true}, 0},
		"other octets":        {[]dlmstest.Object{id(axdr.OctetString("\x00\xAB\x01"))}, "", meter.Identity{Found: "00ab01", Proven: true}, 0},
		"maker in front":      {[]dlmstest.Object{name(axdr.OctetString("GRGGRG42"))}, "grg42", meter.Identity{Want: "grg42", Found: "grg42", Proven: true}, 0},
		"another's name":      {[]dlmstest.Object{name(axdr.OctetString("GRG1GRG42"))}, "GRG42", meter.Identity{Want: "GRG42", Found: "GRG1GRG42"}, 0},
		"logical device name": {[]dlmstest.Object{name(axdr.OctetString("GRG42"))}, "GRG42", meter.Identity{Want: "GRG42", Found: "GRG42", Proven: true}, 0},
		"id is null":          {[]dlmstest.Object{id(axdr.Null()), name(axdr.OctetString("GRG42"))}, "", meter.Identity{Found: "GRG42", Proven: true}, 0},
		"id is empty":         {[]dlmstest.Object{id(axdr.OctetString("")), name(axdr.OctetString("GRG42"))}, "", meter.Identity{Found: "GRG42", Proven: true}, 0},
		"none to show":        {nil, "A1", meter.Identity{Want: "A1"}, meter.IdentityNotProven},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, dlmstest.Options{Objects: append(objects(""), c.objects...)})
			got, err := r.driver(t, Config{Serial: c.serial}).Visit(t.Context(), registers(t, "1-0:1.8.0"))
			if err != nil || got.Identity != c.want || len(got.Rows) != 1 {
				t.Fatalf("%v, %s", err, describe(got))
			}
			if row := got.Rows[0]; row.Serial != c.want.Found || row.Quality != c.quality || row.Value.String() != "1234.5" {
				t.Errorf("got %+v", row)
			}
		})
	}
}

func TestAChannelThatFailsStopsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"),
		dlmstest.Attributes(3, obisOf("1-0:3.8.0"), map[int8]func() axdr.Value{2: fixed(axdr.Unsigned(1))}),
		dlmstest.Attributes(3, obisOf("1-0:4.8.0"), map[int8]func() axdr.Value{2: fixed(axdr.Unsigned(1)), 3: fixed(axdr.Unsigned(1))}),
		dlmstest.Data(obisOf("0-0:96.7.0"), fixed(axdr.Value{Tag: axdr.TagOctetString})))})
	// One object has data of a type that nobody knows.
	r.spoil(func(request, frame []byte) []byte {
		if name(request) == "0-0:96.7.0*255/1:2" {
			frame[len(frame)-2] = 99
		}
		return frame
	})
	m := r.driver(t, Config{})
	got, err := m.Visit(t.Context(), registers(t, "1-0:9.9.9", "thd.current.l1", "0-0:96.3.0", "1-0:3.8.0", "1-0:4.8.0", "0-0:96.7.0", "1-0:1.8.0"))
	if err != nil || len(got.Rows) != 1 || got.Rows[0].Channel != "1-0:1.8.0*255/3:2" || len(got.Failures) != 6 {
		t.Fatalf("%v, %s", err, describe(got))
	}
	for i, want := range []error{dlms.ObjectUndefined, ErrNotCOSEM, errNotScalar, dlms.ReadWriteDenied, meter.ErrGarbled, meter.ErrGarbled} {
		if !errors.Is(got.Failures[i], want) {
			t.Errorf("%v, want %v", got.Failures[i], want)
		}
	}
	if text := got.Failures[0].Error(); text != "1-0:9.9.9: get 1-0:9.9.9*255/3:2: object undefined" {
		t.Errorf("it says %q", text)
	}
}

// TestWhyAVisitStops has a row for everything that a technician meets.
func TestWhyAVisitStops(t *testing.T) {
	t.Parallel()
	silence := func(request, frame []byte) []byte { return nil }
	answer := func(text string) func(request, frame []byte) []byte {
		return func(_, frame []byte) []byte { return append(frame[:6:6], text...) }
	}
	for title, c := range map[string]struct {
		cfg    Config
		tamper func(request, frame []byte) []byte
		is     error
		words  string
	}{
		"wrong password":      {Config{Client: 17, Auth: AuthLLS, Password: []byte("x")}, nil, meter.ErrAuthentication, "the meter refused client 17: authentication failed (wrong password?)"},
		"password missing":    {Config{Client: 17}, nil, meter.ErrAuthentication, "client 17: authentication failed (it wants a password: auth=lls?)"},
		"unknown client":      {Config{Client: 18}, nil, nil, "the meter refused client 18 (does it know this client?)"},
		"mechanism not known": {Config{Client: 17, Auth: AuthLLS, Password: []byte("x")}, func(_, frame []byte) []byte { frame[len(frame)-1] = 11; return frame }, meter.ErrAuthentication, "it does not take auth=lls from this client"},
		"other server":        {Config{Server: 9, Timeout: 50 * time.Millisecond}, nil, meter.ErrNoAnswer, "no answer within 50ms (is the meter on, does it know client 16 and server 9?)"},
		"silence":             {Config{Timeout: 50 * time.Millisecond}, silence, meter.ErrNoAnswer, "within 50ms"},
		"not dlms":            {Config{}, func(_, _ []byte) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n") }, meter.ErrGarbled, "does this port speak DLMS"},
		"too long":            {Config{}, answer("\xFF\xFF\xC4"), meter.ErrGarbled, "65535 octets"},
		"cut short":           {Config{Timeout: 50 * time.Millisecond}, answer("\x00\x40\xC4"), meter.ErrNoAnswer, "no answer that is whole: it stopped on its way, for 50ms"},
		"nonsense in frames":  {Config{}, answer("\x00\x03\xFF\x00\x55"), meter.ErrGarbled, "answers nothing that was asked"},
		"empty answers":       {Config{}, answer("\x00\x00"), meter.ErrGarbled, "empty"},
		"half an AARE":        {Config{}, answer("\x00\x05\x61\x29\xA1\x09\x06"), meter.ErrGarbled, "no answer to an association request"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, dlmstest.Options{Objects: objects("A1"), Logins: map[uint16]string{16: "", 17: "12345678"}, Tamper: c.tamper})
			ask := registers(t, "1-0:1.8.0")
			got, err := r.driver(t, c.cfg).Visit(t.Context(), ask)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.words) ||
				!strings.HasPrefix(err.Error(), "line "+r.addr) || len(got.Rows) != 0 {
				t.Errorf("%v, %s", err, describe(got))
			}
			for _, other := range []error{meter.ErrAuthentication, meter.ErrNoAnswer, meter.ErrGarbled} {
				if !errors.Is(c.is, other) && errors.Is(err, other) {
					t.Errorf("%v is also %v", err, other)
				}
			}
			if len(c.cfg.Password) > 1 && strings.Contains(err.Error(), string(c.cfg.Password)) {
				t.Error("the password is in it")
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	r := &rig{addr: "127.0.0.1:1"}
	_, err := r.driver(t, Config{}).Visit(t.Context(), meter.Ask{})
	if !errors.Is(err, meter.ErrNoAnswer) || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "is the port number right") {
		t.Errorf("got %v", err)
	}
}

// TestGarbageGivesNoValue lets a meter answer anything once the association
// stands: there are failures or errors, and never a row.
func TestGarbageGivesNoValue(t *testing.T) {
	t.Parallel()
	serial := "0-0:96.1.0*255/1:2"
	for title, apdu := range map[string]string{
		"no apdu":        "\xFF\x00\x55\xAA",
		"unknown type":   "\xC4\x01\xC2\x00\x63\x00",
		"cut short":      "\xC4\x01\xC2\x00\x06\x00\x00",
		"no choice":      "\xC4\x01\xC2\x07\x06\x00\x00\x00\x01",
		"block 7":        "\xC4\x02\xC2\x01\x00\x00\x00\x07\x00\x05\x06\x00\x00\x00\x01",
		"another answer": "\xC4\x01\xC9\x00\x06\x00\x00\x00\x01",
		"an association": "\x61\x00",
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, dlmstest.Options{Objects: objects("A1")})
			r.spoil(func(request, frame []byte) []byte {
				if n := name(request); n == "associate" || n == serial {
					return frame
				}
				return append(frame[:6:6], "\x00"+string(rune(len(apdu)))+apdu...)
			})
			m := r.driver(t, Config{Timeout: 50 * time.Millisecond})
			got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
			garbled := errors.Is(err, meter.ErrGarbled) || errors.Is(err, meter.ErrNoAnswer) ||
				len(got.Failures) == 1 && errors.Is(got.Failures[0], meter.ErrGarbled)
			if len(got.Rows) != 0 || !garbled {
				t.Errorf("%v, %s", err, describe(got))
			}
			r.spoil(nil)
			if got, err = m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
				t.Errorf("and then: %v, %s", err, describe(got))
			}
		})
	}
}

// TestABrokenAssociationIsOpenedAnew has the ways in which a meter forgets an
// association between two visits.
func TestABrokenAssociationIsOpenedAnew(t *testing.T) {
	t.Parallel()
	for title, forget := range map[string]func(frame []byte) []byte{
		"silence":             func([]byte) []byte { return nil },
		"service not allowed": func(frame []byte) []byte { return append(frame[:6:6], 0, 3, 0xD8, 1, 1) },
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, dlmstest.Options{Objects: objects("A1")})
			m := r.driver(t, Config{Timeout: 100 * time.Millisecond})
			ask := registers(t, "1-0:1.8.0")
			if _, err := m.Visit(t.Context(), ask); err != nil {
				t.Fatal(err)
			}
			r.asked()
			forgotten := true
			r.spoil(func(request, frame []byte) []byte {
				if forgotten = forgotten && name(request) != "associate"; forgotten {
					return forget(frame)
				}
				return frame
			})
			got, err := m.Visit(t.Context(), ask)
			if err != nil || len(got.Rows) != 1 {
				t.Fatalf("%v, %s", err, describe(got))
			}
			if asked := r.asked(); !isList(asked, "1-0:1.8.0*255/3:2", "associate", "0-0:96.1.0*255/1:2", "1-0:1.8.0*255/3:2") {
				t.Errorf("asked %q", asked)
			}
			// Once a visit, and no more.
			r.spoil(func(_, frame []byte) []byte { return forget(frame) })
			if got, err = m.Visit(t.Context(), ask); err == nil || len(got.Rows) != 0 {
				t.Fatalf("%v, %s", err, describe(got))
			}
			if asked := r.asked(); len(asked) != 2 {
				t.Errorf("asked %q", asked)
			}
		})
	}
}

func TestAFailureWithinAVisitIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, dlmstest.Options{Objects: objects("A1")})
	m := r.driver(t, Config{Timeout: 100 * time.Millisecond})
	ask := registers(t, "1-0:1.8.0", "1-0:2.8.0")
	if _, err := m.Visit(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	r.asked()
	r.spoil(func(request, frame []byte) []byte {
		if name(request) == "1-0:2.8.0*255/3:2" {
			return nil
		}
		return frame
	})
	got, err := m.Visit(t.Context(), ask)
	if !errors.Is(err, meter.ErrNoAnswer) || len(got.Rows) != 1 || got.Rows[0].Channel != energy {
		t.Errorf("%v, %s", err, describe(got))
	}
	if asked := r.asked(); !isList(asked, "1-0:1.8.0*255/3:2", "1-0:2.8.0*255/3:2") {
		t.Errorf("asked %q", asked)
	}
}

// TestAnExchangedMeterIsReadWithItsOwnScalers changes the meter behind the
// address between two visits.
func TestAnExchangedMeterIsReadWithItsOwnScalers(t *testing.T) {
	t.Parallel()
	for title, serials := range map[string][2]string{"with serial numbers": {"A1", "B2"}, "without": {"", ""}} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, dlmstest.Options{Objects: objects(serials[0])})
			m := r.driver(t, Config{Serial: serials[0]})
			if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || got.Rows[0].Value.String() != "1234.5" {
				t.Fatalf("%v, %s", err, describe(got))
			}
			other := objects(serials[1])
			other[1] = dlmstest.Register(obisOf("1-0:1.8.0"), 3, 30, fixed(axdr.DoubleLongUnsigned(7)))
			r.mu.Lock()
			r.serve = dlmstest.NewMeter(dlmstest.Options{Objects: other}).Serve
			r.mu.Unlock()
			r.hangUp()
			got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
			if err != nil || got.Rows[0].Value.String() != "7000" || got.Rows[0].Serial != serials[1] || got.Identity.Exchanged() != (serials[0] != "") {
				t.Errorf("%v, %s", err, describe(got))
			}
		})
	}
}

func TestCloseLeavesOthersConnectionsAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, dlmstest.Options{Objects: objects("A1")})
	m := r.driver(t, Config{})
	if _, err := m.Visit(t.Context(), meter.Ask{}); err != nil {
		t.Fatal(err)
	}
	r.asked()
	r.hangUp()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if asked := r.asked(); len(asked) != 0 {
		t.Errorf("on a connection without an association it sent %q", asked)
	}
}

func TestCancelReturnsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, dlmstest.Options{Objects: objects("A1")})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.spoil(func(request, frame []byte) []byte {
		if name(request) == "1-0:2.8.0*255/3:2" {
			cancel() // and no answer, for longer than the test may take
			return nil
		}
		return frame
	})
	m := r.driver(t, Config{Timeout: time.Hour})
	got, err := m.Visit(ctx, registers(t, "1-0:1.8.0", "1-0:2.8.0"))
	if !errors.Is(err, context.Canceled) || len(got.Rows) != 1 {
		t.Errorf("%v, %s", err, describe(got))
	}
	r.spoil(nil)
	if got, err = m.Visit(t.Context(), registers(t, "1-0:2.8.0")); err != nil || len(got.Rows) != 1 {
		t.Errorf("the next visit: %v, %s", err, describe(got))
	}
}

func TestClockOffset(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		clock string
		want  *meter.ClockOffset
		is    error
	}{
		"ahead":           {"\x07\xEA\x03\x1C\x06\x0D\x00\x05\x00\xFF\xC4\x00", &meter.ClockOffset{Offset: 5 * time.Second, Uncertainty: time.Second, Valid: true}, nil},
		"with hundredths": {"\x07\xEA\x03\x1C\x06\x0C\x3B\x3B\x32\x00\x00\x00", &meter.ClockOffset{Offset: 59*time.Minute + 59*time.Second + 500*time.Millisecond, Uncertainty: 10 * time.Millisecond, Valid: true}, nil},
		"invalid":         {"\x07\xEA\x03\x1C\x06\x0C\x00\x00\xFF\x00\x00\x01", &meter.ClockOffset{Uncertainty: time.Second}, nil},
		"local time":      {"\x07\xEA\x03\x1C\x06\x0D\x00\x00\x00\x80\x00\x00", &meter.ClockOffset{Uncertainty: time.Second, Valid: true}, nil},
		"no status given": {"\x07\xEA\x03\x1C\x06\x0C\x00\x00\x00\x00\x00\xFF", &meter.ClockOffset{Uncertainty: time.Second, Valid: true}, nil},
		"never set":       {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x80\x00\xFF", nil, dlms.ErrNoMoment},
		"no date-time":    {"\x07\xEA", nil, meter.ErrGarbled},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			clock := dlmstest.Attributes(8, obisOf("0-0:1.0.0"), map[int8]func() axdr.Value{2: fixed(axdr.OctetString(c.clock))})
			r := newRig(t, dlmstest.Options{Objects: append([]dlmstest.Object{clock}, objects("A1")...)})
			zone, err := time.LoadLocation("Europe/Berlin")
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.driver(t, Config{TimeZone: zone}).Visit(t.Context(), meter.Ask{Clock: true})
			if c.want != nil {
				c.want.At = (&turnable{at: start()}).now()
			}
			if err != nil || (got.Clock == nil) != (c.want == nil) || c.want != nil && *got.Clock != *c.want ||
				c.is != nil && (len(got.Failures) != 1 || !errors.Is(got.Failures[0], c.is)) {
				t.Errorf("%v, %s", err, describe(got))
			}
		})
	}
}

// TestTrace01 has what a real meter said, through the driver.
func TestTrace01(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../../dlms/testdata/01-wrapper-ln-none-clock-range.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	trace, err := dlmstest.ParseTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{serve: func(s io.ReadWriter) error { return trace.Answer(s, nil) }}
	r.listen(t)
	clock := &turnable{at: time.Date(2026, 11, 22, 8, 40, 25, 0, time.UTC)}
	m := r.driver(t, Config{Now: clock.now})
	ask := registers(t, "0-0:1.0.0", "1-1:21.25.0", "1-0:9.9.9")
	since := time.Date(2026, 11, 21, 8, 45, 0, 0, time.UTC) // the first row's
	ask.Profiles = []meter.Profile{{Channel: channel(t, "1-0:99.1.0"), Lane: meter.Interval, Since: since.UnixMilli()}}
	ask.Groups[0].Lane = meter.Alarm // before the profile
	ask.Clock = true
	got, err := m.Visit(t.Context(), ask)
	if err != nil || len(got.Rows) != 2+95 || got.Clock == nil || got.Clock.Offset != -2*time.Second {
		t.Fatalf("%v, %s", err, describe(got))
	}
	if v := got.Rows[0].Value.String(); v != "2026-11-22T08:40:23+00:00" {
		t.Errorf("clock %s", v)
	}
	if row := got.Rows[1]; row.Value.String() != "0.25" || row.Unit != meter.WattHour || row.Quality != meter.IdentityNotProven {
		t.Errorf("register %+v", row)
	}
	for i, row := range got.Rows[2:] {
		n := i + 1
		want := meter.UintValue(uint64(1000+7*n), -2)
		if row.Value != want || row.Stamp.Time != since.Add(time.Duration(n)*15*time.Minute).UnixMilli() || row.Unit != meter.WattHour ||
			row.Channel != "1-1:21.25.0*255/3:2" || row.Lane != meter.Interval || row.Stamp.Source != meter.FromMeter {
			t.Errorf("profile row %d: %+v", n, row)
		}
	}
	if want := []meter.Cursor{{Meter: "m1", Profile: ask.Profiles[0].Channel, Time: since.Add(95 * 15 * time.Minute).UnixMilli()}}; !slices.Equal(got.Cursors, want) {
		t.Errorf("cursors %+v, want %+v", got.Cursors, want)
	}
	if len(got.Failures) != 1 || !errors.Is(got.Failures[0], dlms.ObjectUndefined) {
		t.Errorf("failures %v", got.Failures)
	}
}
