package cosem

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"gridgate/dlms/security"
	"gridgate/internal/meter"
)

// changed are the keys that meters are given here.
func changed(t *testing.T) security.Keys {
	t.Helper()
	return security.Keys{Encryption: aes(t, 0x40, 16), Authentication: aes(t, 0x60, 16)}
}

func changeOf(t *testing.T) meter.ChangeKeys {
	t.Helper()
	next := changed(t)
	return meter.ChangeKeys{
		Keys: map[meter.KeyKind]meter.Secret{
			meter.UnicastKey: next.Encryption.AppendSecret(nil), meter.AuthenticationKey: next.Authentication.AppendSecret(nil),
		},
		Master: masterKey(t).AppendSecret(nil),
	}
}

func masterKey(t *testing.T) security.Key {
	t.Helper()
	return aes(t, 0x90, 16)
}

// keyed is a meter with a master key, and how it is spoken to.
func keyed(t *testing.T) (*rig, Config) {
	t.Helper()
	o := securedMeter(t)
	o.Security.Master = masterKey(t)
	return newRig(t, o), securedConfig(t)
}

// readsWith says whether the meter is read with those keys.
func readsWith(t *testing.T, r *rig, cfg Config, keys security.Keys) bool {
	t.Helper()
	cfg.Security.Keys, cfg.Counters = keys, &store{}
	m := r.driver(t, cfg)
	got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
	return err == nil && len(got.Rows) == 1
}

func TestChangeKeys(t *testing.T) {
	t.Parallel()
	r, cfg := keyed(t)
	m := r.driver(t, cfg)
	got, err := m.Visit(t.Context(), meter.Ask{Acts: []meter.Act{changeOf(t)}})
	if err != nil || got.Done[0].Result != meter.Done || got.Done[0].Keys != meter.NewKeys {
		t.Fatalf("%+v, %v", got.Done, err)
	}
	// The driver goes on with them, and others too.
	if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
		t.Errorf("%v, %v", got.Rows, err)
	}
	if !readsWith(t, r, cfg, changed(t)) || readsWith(t, r, cfg, keysOf(t, 16)) {
		t.Error("the meter is not read with the new keys, or still with the old ones")
	}
	if s := fmt.Sprintf("%v %+v %#v %s", got, got.Done, got.Done[0].Act, changeOf(t).Keys); strings.Contains(s, "40414243") || strings.Contains(s, "@ABC") || strings.Contains(s, "64 65 66") {
		t.Errorf("it shows a key: %s", s)
	}
}

// TestChangeKeysGolden compares the request, in the clear, with one written by
// hand: IEC 62056-6-2, 4.4.7, key_transfer: an array of structures of key id
// (enum) and the wrapped key, by the vector of RFC 3394, 4.1.
func TestChangeKeysGolden(t *testing.T) {
	t.Parallel()
	o := securedMeter(t)
	o.Security.Master = aes(t, 0, 16) // the KEK of the vector
	r := newRig(t, o)
	cfg := securedConfig(t)
	cfg.Client, cfg.Security.Policy = 7, security.Unprotected // GMAC, and services in the clear
	var sent string
	r.spoil(func(request, frame []byte) []byte {
		if s := hex.EncodeToString(request); strings.HasPrefix(s, "c301") && s[6:10] == "0040" {
			sent = s
		}
		return frame
	})
	key, _ := hex.DecodeString("00112233445566778899AABBCCDDEEFF")
	got, err := r.driver(t, cfg).Visit(t.Context(), meter.Ask{Acts: []meter.Act{meter.ChangeKeys{
		Keys: map[meter.KeyKind]meter.Secret{meter.UnicastKey: key}, Master: masterOctets(0),
	}}})
	if err != nil || got.Done[0].Result != meter.Done {
		t.Fatalf("%+v, %v", got.Done, err)
	}
	want := "0040 00002B0000FF 02 01  01 01 0202 1600 0918 1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"
	if want = strings.ToLower(strings.ReplaceAll(want, " ", "")); len(sent) < 6 || sent[6:] != want {
		t.Errorf("sent %s, want c301xx%s", sent, want)
	}
}

func masterOctets(first byte) meter.Secret {
	var s meter.Secret
	for i := range byte(16) {
		s = append(s, first+i)
	}
	return s
}

// TestChangeKeysCut loses one answer, at each turn in turn. Whatever is said of
// the keys is so; and where nothing is known, TryKeys finds out afterwards.
func TestChangeKeysCut(t *testing.T) {
	t.Parallel()
	for turn := 1; turn <= 12; turn++ {
		t.Run(fmt.Sprint(turn), func(t *testing.T) {
			t.Parallel()
			r, cfg := keyed(t)
			m := r.driver(t, cfg)
			n := 0
			r.spoil(func(_, frame []byte) []byte {
				if n++; n == turn {
					go r.hangUp()
					return nil
				}
				return frame
			})
			got, err := m.Visit(t.Context(), meter.Ask{Acts: []meter.Act{changeOf(t)}})
			r.spoil(nil)
			if len(got.Done) != 1 && err == nil {
				t.Fatal("no outcome")
			}
			keys, result := meter.KeysUnknown, meter.NotTried
			if len(got.Done) == 1 {
				keys, result = got.Done[0].Keys, got.Done[0].Result
			}
			hasNew := readsWith(t, r, cfg, changed(t))
			switch {
			case keys == meter.NewKeys && (!hasNew || result != meter.Done):
				t.Errorf("%v: new keys said, the meter has them: %v", result, hasNew)
			case keys == meter.OldKeys && (hasNew || result == meter.Done):
				t.Errorf("%v: old keys said, the meter has the new: %v", result, hasNew)
			case keys == meter.KeysUnknown && result == meter.Done:
				t.Error("done, and nobody knows which keys it has")
			case hasNew && result == meter.NotTried:
				t.Error("not tried, and it has the new keys")
			}
			// After a cut of the gateway: another driver, with the old keys.
			found, err := r.driver(t, cfg).Visit(t.Context(), meter.Ask{Acts: []meter.Act{meter.TryKeys{Keys: changeOf(t).Keys}}})
			want := meter.OldKeys
			if hasNew {
				want = meter.NewKeys
			}
			if err != nil || found.Done[0].Keys != want || found.Done[0].Result != meter.Done {
				t.Errorf("tried: %+v, want %v; %v", found.Done, want, err)
			}
		})
	}
}

// TestNextKeys has a driver begin that does not know which keys the meter has.
func TestNextKeys(t *testing.T) {
	t.Parallel()
	for _, change := range []bool{false, true} {
		r, cfg := keyed(t)
		if change {
			if got, err := r.driver(t, cfg).Visit(t.Context(), meter.Ask{Acts: []meter.Act{changeOf(t)}}); err != nil || got.Done[0].Result != meter.Done {
				t.Fatalf("%+v, %v", got.Done, err)
			}
		}
		next := changed(t)
		var found []bool
		cfg.NextKeys, cfg.KeysFound = &next, func(next bool) { found = append(found, next) }
		m := r.driver(t, cfg)
		for range 2 {
			if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
				t.Errorf("new keys %v: %v, %v", change, got.Rows, err)
			}
		}
		if len(found) != 1 || found[0] != change {
			t.Errorf("found %v, want once %v", found, change)
		}
	}
}

// TestKeysRefused has orders that are none.
func TestKeysRefused(t *testing.T) {
	t.Parallel()
	r, cfg := keyed(t)
	m := r.driver(t, cfg)
	wrong := changeOf(t)
	wrong.Master = masterOctets(1)
	short := changeOf(t)
	short.Keys = map[meter.KeyKind]meter.Secret{meter.UnicastKey: meter.Secret("short")}
	for name, acts := range map[string][]meter.Act{
		"wrong master key": {wrong}, "short key": {short}, "no keys": {meter.ChangeKeys{Master: masterOctets(0x90)}},
		"beside others": {changeOf(t), meter.Disconnect{}}, "short key to try": {meter.TryKeys{Keys: short.Keys}},
	} {
		got, err := m.Visit(t.Context(), meter.Ask{Acts: acts})
		if err != nil || got.Done[0].Result != meter.Refused {
			t.Errorf("%s: %+v, %v", name, got.Done, err)
		}
	}
	if !readsWith(t, r, cfg, keysOf(t, 16)) {
		t.Error("it is not read with the old keys")
	}
	plain := newActor(t, actorOptions{mode: 4})
	if o, err := plain.order(t, changeOf(t)); err != nil || o.Result != meter.Refused {
		t.Errorf("a meter without keys: %+v, %v", o, err)
	}
}

// TestUnknownKeysAreFound has a meter silent from its new keys on; at the next
// visit it is found out which it has.
func TestUnknownKeysAreFound(t *testing.T) {
	t.Parallel()
	mattered := 0
	for turn := 1; turn <= 12; turn++ {
		r, cfg := keyed(t)
		var found []bool
		cfg.KeysFound = func(next bool) { found = append(found, next) }
		m := r.driver(t, cfg)
		n := 0
		r.spoil(func(_, frame []byte) []byte {
			if n++; n >= turn {
				go r.hangUp()
				return nil
			}
			return frame
		})
		got, err := m.Visit(t.Context(), meter.Ask{Acts: []meter.Act{changeOf(t)}})
		r.spoil(nil)
		unknown := len(got.Done) == 1 && got.Done[0].Result == meter.Unknown && got.Done[0].Keys == meter.KeysUnknown
		hasNew := readsWith(t, r, cfg, changed(t))
		if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
			t.Errorf("turn %d: it is not read any more: %v", turn, err)
		}
		if unknown && hasNew {
			mattered++
		}
		if unknown && (len(found) != 1 || found[0] != hasNew) {
			t.Errorf("turn %d: found %v, want %v; %v", turn, found, hasNew, err)
		}
	}
	if mattered == 0 {
		t.Error("no turn at which the meter has its new keys and nobody knows")
	}
}

// TestKeysThatDoNotShow has keys that no association uses: that the meter is read
// says nothing of them.
func TestKeysThatDoNotShow(t *testing.T) {
	t.Parallel()
	r, cfg := keyed(t)
	only := map[meter.KeyKind]meter.Secret{meter.MasterKey: masterOctets(1)}
	got, err := r.driver(t, cfg).Visit(t.Context(), meter.Ask{Acts: []meter.Act{meter.TryKeys{Keys: only}}})
	if len(got.Done) != 1 || got.Done[0].Keys != meter.KeysUnknown || got.Done[0].Result != meter.Unknown || err == nil {
		t.Errorf("%+v, %v", got.Done, err)
	}
	same := cfg.Security.Keys
	cfg.NextKeys, cfg.KeysFound = &same, func(next bool) { t.Errorf("found %v", next) }
	if got, err := r.driver(t, cfg).Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
		t.Errorf("%v, %v", got.Rows, err)
	}
}

// TestChangeMasterKey gives a meter another master key alone: its word counts, and
// where that is lost nobody says that it has it.
func TestChangeMasterKey(t *testing.T) {
	t.Parallel()
	act := meter.ChangeKeys{Keys: map[meter.KeyKind]meter.Secret{meter.MasterKey: masterOctets(1)}, Master: masterKey(t).AppendSecret(nil)}
	done, unknown := 0, 0
	for turn := range 12 { // at 0 no answer is lost
		r, cfg := keyed(t)
		n := 0
		r.spoil(func(_, frame []byte) []byte {
			if n++; n == turn {
				go r.hangUp()
				return nil
			}
			return frame
		})
		got, err := r.driver(t, cfg).Visit(t.Context(), meter.Ask{Acts: []meter.Act{act}})
		r.spoil(nil)
		if len(got.Done) != 1 {
			continue
		}
		switch o := got.Done[0]; {
		case o.Result == meter.Done && o.Keys == meter.NewKeys:
			done++
		case o.Result == meter.Unknown && o.Keys == meter.KeysUnknown && err != nil:
			unknown++
		case o.Result != meter.NotTried:
			t.Errorf("turn %d: %+v, %v", turn, o, err)
		}
	}
	if done == 0 || unknown == 0 {
		t.Errorf("%d done, %d unknown; want some of both", done, unknown)
	}
}
