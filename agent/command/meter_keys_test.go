package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"

	"gridgate/internal/meter"
)

const (
	oldEK = "000102030405060708090a0b0c0d0e0f"
	oldAK = "d0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
	newEK = "404142434445464748494a4b4c4d4e4f"
	newAK = "606162636465666768696a6b6c6d6e6f"
	kek   = "909192939495969798999a9b9c9d9e9f"
)

// cutStore is a store in memory, whose gateway is cut off before or behind a
// change.
type cutStore struct {
	is     map[string]string
	sealed string // what Open gives
	left   int    // changes until the cut; below 0 is never
	behind bool   // the last change is still made
	off    bool   // the gateway is
	cut    func()
}

var errCut = errors.New("cut off")

func (s *cutStore) Get(name string) (meter.Secret, error) {
	if v, ok := s.is[name]; ok {
		return meter.Secret(v), nil
	}
	return nil, nil
}

func (s *cutStore) change(do func()) error {
	switch {
	case s.off:
		return errCut
	case s.left == 0:
		if s.behind {
			do()
		}
		s.off = true
		s.cut()
		return errCut
	}
	s.left--
	do()
	return nil
}

func (s *cutStore) Set(name string, v meter.Secret) error {
	return s.change(func() { s.is[name] = string(v) })
}

func (s *cutStore) Remove(name string) error { return s.change(func() { delete(s.is, name) }) }

func (s *cutStore) Open([]byte) (meter.Secret, error) {
	if s.sealed == "" {
		return nil, errors.New("not sealed to this gateway")
	}
	return meter.Secret(s.sealed), nil
}

// keyMeter is a meter that is given keys.
type keyMeter struct {
	ek, ak string
	cutAt  int // visit at which the gateway is cut off: 1 is the first; behind what the meter does
	before bool
	visits int
	gave   int
	cut    func()
	lost   bool // its answer is lost, and it is silent from then on
}

func (m *keyMeter) visit(ask meter.Ask) (meter.Got, error) {
	m.visits++
	o := meter.Outcome{Act: ask.Acts[0], Sent: true}
	if m.visits == m.cutAt && m.before {
		m.cut()
		return meter.Got{}, errCut
	}
	switch act := ask.Acts[0].(type) {
	case meter.ChangeKeys:
		m.gave++
		m.ek, m.ak = fmt.Sprintf("%x", []byte(act.Keys[meter.UnicastKey])), fmt.Sprintf("%x", []byte(act.Keys[meter.AuthenticationKey]))
		o.Result, o.Keys = meter.Done, meter.NewKeys
		if m.lost {
			o.Result, o.Keys, o.Err = meter.Unknown, meter.KeysUnknown, meter.ErrNoAnswer
		}
	case meter.TryKeys:
		o.Result, o.Keys = meter.Done, meter.OldKeys
		if fmt.Sprintf("%x", []byte(act.Keys[meter.UnicastKey])) == m.ek {
			o.Keys = meter.NewKeys
		}
	}
	if m.visits == m.cutAt {
		m.cut()
		return meter.Got{}, errCut
	}
	return meter.Got{Done: []meter.Outcome{o}}, o.Err
}

func names() KeyNames {
	return KeyNames{meter.UnicastKey: "m1-ek", meter.AuthenticationKey: "m1-ak", meter.MasterKey: "m1-kek"}
}

func keyStore() *cutStore {
	return &cutStore{
		is:     map[string]string{"m1-ek": oldEK, "m1-ak": oldAK, "m1-kek": kek},
		sealed: "serial,ek,ak\na1," + newEK + "," + strings.ToUpper(newAK) + "\n", left: -1, cut: func() {},
	}
}

// can says whether the meter can be read with what is in the store: its keys are
// there, in use or beside them, all of one kind.
func (s *cutStore) can(m *keyMeter) bool {
	next := func(name string) string {
		if v, ok := s.is[name+next]; ok {
			return v
		}
		return s.is[name]
	}
	return s.is["m1-ek"] == m.ek && s.is["m1-ak"] == m.ak || next("m1-ek") == m.ek && next("m1-ak") == m.ak
}

// TestChangeKeysCut cuts the gateway off at every change of its store, before and
// behind it, at every note, and before and behind every visit; and then lets it
// go on. At no moment are the meter's keys lost, and it is given them once.
func TestChangeKeysCut(t *testing.T) {
	t.Parallel()
	type where struct {
		kind   string
		n      int
		behind bool
	}
	var cuts []where
	for n := range 12 {
		for _, behind := range []bool{false, true} {
			cuts = append(cuts, where{"store", n, behind})
			if n > 0 && n < 4 {
				cuts = append(cuts, where{"note", n, behind}, where{"visit", n, behind})
			}
		}
	}
	for _, c := range cuts {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, m := keyStore(), &keyMeter{ek: oldEK, ak: oldAK}
				var last json.RawMessage
				var out Outcome
				for start := range 3 {
					ctx, cancel := context.WithCancel(t.Context())
					j := jobOf(func(ask meter.Ask) (meter.Got, error) {
						got, err := m.visit(ask)
						if !store.can(m) {
							t.Error("the meter has keys that are nowhere")
						}
						return got, err
					})
					notes := 0
					j.Note = func(v any) error {
						notes++
						off := start == 0 && c.kind == "note" && c.n == notes
						if !off || c.behind {
							last, _ = json.Marshal(v)
						}
						if off {
							cancel()
							return errCut
						}
						return nil
					}
					if store.left, store.off = -1, false; start == 0 && c.kind == "store" {
						store.left, store.behind = c.n, c.behind
					}
					if m.cutAt = 0; start == 0 && c.kind == "visit" {
						m.cutAt, m.before = c.n, !c.behind
					}
					store.cut, m.cut = cancel, cancel
					j.Gateway.Meters = MeterServices{Keys: store, KeyNames: func(meter.ID) (KeyNames, error) { return names(), nil }}
					j.Noted, j.Resumed = last, start > 0
					out = changeKeys{}.Do(ctx, j)
					ended := ctx.Err() == nil
					cancel()
					if !store.can(m) {
						t.Fatalf("the meter has keys that are nowhere: %v", store.is)
					}
					if ended {
						break
					}
				}
				if m.gave > 1 {
					t.Errorf("given %d times", m.gave)
				}
				want := map[string]string{"m1-ek": m.ek, "m1-ak": m.ak, "m1-kek": kek}
				if (out.State == Done) != (m.ek == newEK) || out.State != Done && out.State != Failed || !maps.Equal(store.is, want) {
					t.Errorf("%v %q; the store has %v, want %v", out.State, out.Text, store.is, want)
				}
			})
		})
	}
}

// TestChangeKeysUnknown has a meter that is silent behind the change: both keys
// stay, and what finds out later settles them.
func TestChangeKeysUnknown(t *testing.T) {
	t.Parallel()
	for _, has := range []bool{true, false} {
		store, m := keyStore(), &keyMeter{ek: oldEK, ak: oldAK, lost: true}
		j := jobOf(m.visit)
		j.Gateway.Meters = MeterServices{Keys: store, KeyNames: func(meter.ID) (KeyNames, error) { return names(), nil }}
		if out := (changeKeys{}).Do(t.Context(), j); out.State != Unknown || strings.Contains(out.Text, newEK) {
			t.Fatalf("%+v", out)
		}
		keys, err := StagedKeys(store, names())
		if err != nil || fmt.Sprintf("%x", []byte(keys[meter.UnicastKey])) != newEK || store.is["m1-ek"] != oldEK {
			t.Fatalf("%v, %v", store.is, err)
		}
		want := map[bool]string{true: newEK, false: oldEK}[has]
		if err := SettleKeys(store, names(), has); err != nil || store.is["m1-ek"] != want || len(store.is) != 3 {
			t.Errorf("%v: %v, %v", has, store.is, err)
		}
	}
}

// TestChangeKeysRefused has nothing sent where a key could not be kept, or is none.
func TestChangeKeysRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(j *Job, s *cutStore){
		"no store": func(j *Job, _ *cutStore) { j.Gateway.Meters.Keys = nil },
		"keys elsewhere": func(j *Job, _ *cutStore) {
			j.Gateway.Meters.KeyNames = func(meter.ID) (KeyNames, error) { return nil, errCut }
		},
		"not sealed to us": func(_ *Job, s *cutStore) { s.sealed = "" },
		"another meter":    func(_ *Job, s *cutStore) { s.sealed = strings.ReplaceAll(s.sealed, "a1", "b2") },
		"no key":           func(_ *Job, s *cutStore) { s.sealed = "serial,ek\na1,12\n" },
		"no name for it":   func(_ *Job, s *cutStore) { s.sealed = "serial,bek\na1," + newEK + "\n" },
		"no master key":    func(_ *Job, s *cutStore) { delete(s.is, "m1-kek") },
		"no serial number": func(j *Job, _ *cutStore) { j.Serial = "" },
	} {
		store, m := keyStore(), &keyMeter{ek: oldEK, ak: oldAK}
		j := jobOf(m.visit)
		j.Gateway.Meters = MeterServices{Keys: store, KeyNames: func(meter.ID) (KeyNames, error) { return names(), nil }}
		change(j, store)
		before := maps.Clone(store.is)
		if out := (changeKeys{}).Do(t.Context(), j); out.State != Refused || m.visits != 0 || !maps.Equal(store.is, before) {
			t.Errorf("%s: %v %q, %d visits", name, out.State, out.Text, m.visits)
		}
	}
}

func TestImportKeys(t *testing.T) {
	t.Parallel()
	store := keyStore()
	store.sealed = "\xEF\xBB\xBF# from the maker\nSerial, EK , kek,password\r\nA1," + newEK + "," + kek + ",\r\n\r\nZ/9,,,p w\r\n"
	j := jobOf(nil)
	j.Gateway.Meters = MeterServices{
		Keys: store, KeyNames: func(meter.ID) (KeyNames, error) { return names(), nil },
		Find: func(serial string) (meter.ID, bool) { return "m1", serial == "A1" },
	}
	out := importKeys{}.Do(t.Context(), j)
	want := map[string]string{"m1-ek": newEK, "m1-ak": oldAK, "m1-kek": kek, "meter-z-9-password": "p w"}
	if out.State != Done || !maps.Equal(store.is, want) {
		t.Errorf("%v %q: %v, want %v", out.State, out.Text, store.is, want)
	}
	if b, _ := json.Marshal(out); strings.Contains(string(b), newEK) || strings.Contains(string(b), "p w") {
		t.Errorf("it tells a secret: %s", b)
	}
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"":                                "first line",
		"ek,ak\n":                         "no column serial",
		"serial,ek,ek\n":                  "column 3",
		"serial,colour\n":                 "column 2",
		"serial,ek\n":                     "no meters",
		"serial,ek\na1," + newEK + "0\n":  "line 2: ek",
		"serial,ek\na1,\n":                "line 2: no key",
		"serial,ek\n," + newEK + "\n":     "line 2: serial",
		"serial,ek\na1," + newEK + ",x\n": "line 2",
		"serial,ek\na1," + newEK + "\na1," + newEK + "\nb,12\n": "line 3: a serial number that stands there twice",
	} {
		rows, err := parseKeyFile([]byte(file))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), newEK[:8]) {
			t.Errorf("%q: %d rows, %v; want %q", file, len(rows), err, want)
		}
	}
}

func FuzzKeyFile(f *testing.F) {
	f.Add([]byte("serial,ek,ak,kek,bek,password\na1," + newEK + ",,,,pw\n"))
	f.Add([]byte("serial,ek\r\n#\n\na,b,c\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		rows, err := parseKeyFile(file)
		if (err == nil) != (len(rows) > 0) {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		for _, r := range rows {
			if r.serial == "" || len(r.serial) > mostSerial || len(r.keys) == 0 && r.password == nil {
				t.Fatalf("a row of nothing")
			}
			for _, k := range r.keys {
				if len(k) != 16 && len(k) != 32 {
					t.Fatalf("a key of %d octets", len(k))
				}
			}
		}
	})
}
