package agent

import (
	"fmt"
	"testing"
	"time"

	"gridgate/agent/command"
	"gridgate/agent/order"
	"gridgate/configs"
	"gridgate/drivers/address"
	"gridgate/internal/meter"
)

// TestKeysChangeWithStaged has a cut leave new keys beside the old ones before the
// meter was told; the driver that is opened then does not know which it has. When
// the command goes on the keys of the meter are in the store.
func TestKeysChangeWithStaged(t *testing.T) {
	t.Parallel()
	k := newKeyed(t, 0)
	k.keys.is["m-ek-next"] = nextEK
	engine, results := k.engine(t)
	data := k.u.sign(order.Control, fmt.Sprintf("gridgate: 1\nkind: command\ntarget: here/gw1\nid: c\nnot_after: %s\n---\n"+
		"action: change-keys\nmeters: [m]\nwith:\n  sealed: |\n    sealed\n    serial,ek\n    S1,%s\n", time.Now().Add(time.Hour).UTC().Format(time.RFC3339), nextEK))
	if _, err := engine.Take(command.Incoming{Data: data, Via: "test"}); err != nil {
		t.Fatal(err)
	}
	r := <-results
	if r.State != command.Done || k.keys.is["m-ek"] != nextEK {
		t.Errorf("%s %v; the store has %v", r.State, r.Meters, k.keys.is)
	}
	if got, err := k.open(t).Visit(t.Context(), meter.Ask{}); err != nil || !got.Identity.Proven {
		t.Errorf("with what is in the store it is not read: %v", err)
	}
}

// TestKeysAreOwn: a secret that two meters share is not changed for one of them.
func TestKeysAreOwn(t *testing.T) {
	t.Parallel()
	of := func(id, serial, ek string) configs.Meter {
		a, err := address.Parse("dlms+wrapper://127.0.0.1:4059?client=1&auth=gmac&security=authenc&title=GRIDGATE&ek=secret:" + ek + "&ak=secret:" + id + "-ak")
		if err != nil {
			t.Fatal(err)
		}
		return configs.Meter{ID: meter.ID(id), Serial: serial, Address: a}
	}
	a, b, twin := of("a", "1", "site"), of("b", "2", "site"), of("c", "1", "site")
	if err := keysAreOwn([]configs.Meter{a, twin}, a); err != nil {
		t.Errorf("two associations of one meter: %v", err)
	}
	if keysAreOwn([]configs.Meter{a, b}, a) == nil {
		t.Error("a secret of two meters may be changed")
	}
	if err := keysAreOwn([]configs.Meter{a, of("b", "2", "own")}, a); err != nil {
		t.Error(err)
	}
}
