package command

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"gridgate/internal/meter"
)

// TestChangeKeysAmidSettling has visits that find the old keys while new ones are
// being given: they do not forget those.
func TestChangeKeysAmidSettling(t *testing.T) {
	t.Parallel()
	store, m := keyStore(), &keyMeter{ek: oldEK, ak: oldAK}
	var changing sync.Mutex
	tried := 0
	j := jobOf(func(ask meter.Ask) (meter.Got, error) {
		if changing.TryLock() {
			if err := SettleKeys(store, names(), false); err != nil {
				t.Error(err)
			}
			changing.Unlock()
		} else {
			tried++
		}
		got, err := m.visit(ask)
		if !store.can(m) {
			t.Error("the meter has keys that are nowhere")
		}
		return got, err
	})
	j.Gateway.Meters = MeterServices{
		Keys: store, KeyNames: func(meter.ID) (KeyNames, error) { return names(), nil },
		Changing: func(meter.ID) (func(), error) { changing.Lock(); return changing.Unlock, nil },
	}
	if out := (changeKeys{}).Do(t.Context(), j); out.State != Done || store.is["m1-ek"] != newEK || tried == 0 || !changing.TryLock() {
		t.Errorf("%+v, %v", out, store.is)
	}
}

// TestChangeKeysAfterUnknown orders keys for a meter of which it is not known which
// it has: that is found out first, and where it cannot be both stay.
func TestChangeKeysAfterUnknown(t *testing.T) {
	t.Parallel()
	const thirdEK, thirdAK = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf", "b0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
	for _, has := range []bool{true, false} {
		for _, silent := range []bool{true, false} {
			store, m := keyStore(), &keyMeter{ek: oldEK, ak: oldAK}
			if has {
				m.ek, m.ak = newEK, newAK
			}
			store.is["m1-ek-next"], store.is["m1-ak-next"] = newEK, newAK
			store.sealed = "serial,ek,ak\na1," + thirdEK + "," + thirdAK + "\n"
			ctx, cancel := context.WithCancel(t.Context())
			j := jobOf(func(ask meter.Ask) (meter.Got, error) {
				if silent {
					o := meter.Outcome{Act: ask.Acts[0], Result: meter.Unknown, Sent: true, Err: meter.ErrNoAnswer}
					return meter.Got{Done: []meter.Outcome{o}}, o.Err
				}
				got, err := m.visit(ask)
				if !store.can(m) {
					t.Error("the meter has keys that are nowhere")
				}
				return got, err
			})
			j.Gateway.Meters = MeterServices{Keys: store, KeyNames: func(meter.ID) (KeyNames, error) { return names(), nil }}
			out := changeKeys{}.Do(ctx, j)
			cancel()
			state := fmt.Sprint(store.is)
			switch {
			case !store.can(m):
				t.Errorf("new %v, silent %v: the meter has keys that are nowhere: %v", has, silent, state)
			case silent && (out.State != Failed || !strings.Contains(out.Text, "nothing was sent") || store.is["m1-ek"] != oldEK || store.is["m1-ek-next"] != newEK):
				t.Errorf("new %v, silent: %+v; %v", has, out, state)
			case !silent && (out.State != Done || m.ek != thirdEK || store.is["m1-ek"] != thirdEK || len(store.is) != 3):
				t.Errorf("new %v: %+v; %v", has, out, state)
			}
		}
	}
}

// TestChangeKeysFoundByAVisit has a cut, and a visit find out before the command's
// turn that the meter has its new keys.
func TestChangeKeysFoundByAVisit(t *testing.T) {
	t.Parallel()
	store := keyStore()
	store.is["m1-ek"], store.is["m1-ak"] = newEK, newAK
	j := jobOf(nil)
	j.Noted, j.Resumed = []byte(`{"staged":true}`), true
	j.Gateway.Meters = MeterServices{Keys: store, KeyNames: func(meter.ID) (KeyNames, error) { return names(), nil }}
	if out := (changeKeys{}).Do(t.Context(), j); out.State != Done {
		t.Errorf("%+v", out)
	}
}
