package bridge

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/track"
)

// A node that comes back goes on with bdSeq, and is born whole, with the same
// aliases, though nothing was heard yet.
func TestStoreKeepsANode(t *testing.T) {
	t.Parallel()
	r, h := &reader{t: t}, newHost(t)
	store := Store{Dir: t.TempDir()}
	first := NewNode("north", "gw-7", NodeOptions{})
	if err := store.Load(first); err != nil {
		t.Fatal(err)
	}
	first.Connect(now)
	first.Connect(now)
	births := r.all(first.Birth([]track.Reading{
		reading(energy, at, uintOf(7, 0), 30), reading(voltage, at, uintOf(2301, -1), 35), reading("none", at, batch.Value{}, 0, interval(900)),
	}, now))
	if err := store.Save(first); err != nil {
		t.Fatal(err)
	}
	h.hear(births...)
	second := NewNode("north", "gw-7", NodeOptions{})
	if err := store.Load(second); err != nil {
		t.Fatal(err)
	}
	second.Connect(now)
	births = r.all(second.Birth(nil, now))
	h.hear(births...)
	compare(t, "births from the store", births, `
NBIRTH  0
  bdSeq#0 type 4 at 60000 long 2 []
  Node Control/Rebirth#0 type 11 at 60000 boolean false []
  Properties/Software#1 type 12 at 60000 null []
DBIRTH house-1 1
  Properties/Serial#2 type 12 at 60000 string 4711 []
  instant/1-0:1.8.0#3 type 8 at 60000 null [Quality=500,Channel=1-0:1.8.0*255/3:2,engUnit=Wh]
  instant/1-0:32.7.0#4 type 10 at 60000 null [Quality=500,Channel=1-0:32.7.0*255/3:2,engUnit=V]
  interval/900s/none#5 type 10 at 60000 null [Quality=500,Channel=none]
`)
	data := r.all(second.Data([]track.Reading{
		reading(energy, at+1, uintOf(8, 0), 30), reading("none", at+1, uintOf(8, 0), 0, interval(900)),
	}, now))
	h.hear(data...)
	compare(t, "data after that", data, `
DBIRTH house-1 2
  instant/1-0:1.8.0#3 type 8 at 1 long 8 [Quality=192,Channel=1-0:1.8.0*255/3:2,engUnit=Wh]
  interval/900s/none#5 type 8 at 1 long 8 [Quality=192,Channel=none]
  Properties/Serial#2 type 12 at 60000 string 4711 []
  instant/1-0:32.7.0#4 type 10 at 60000 null [Quality=500,Channel=1-0:32.7.0*255/3:2,engUnit=V]
DDATA house-1 3
  #3 type 8 at 1 long 8 historical []
  #5 type 8 at 1 long 8 historical []
`)
}

func TestStoreIsWrittenWhenSomethingChanged(t *testing.T) {
	t.Parallel()
	store := Store{Dir: t.TempDir()}
	path := filepath.Join(store.Dir, "north", "gw-7.json")
	n := NewNode("north", "gw-7", NodeOptions{})
	n.Connect(now)
	save := func(want bool) {
		t.Helper()
		_ = os.Remove(path)
		if err := store.Save(n); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("written: %v, want %v", err == nil, want)
		}
	}
	save(true)
	save(false)
	n.Birth([]track.Reading{reading(energy, at, uintOf(7, 0), 30)}, now)
	save(true)
	n.Data([]track.Reading{reading(energy, at+1, uintOf(7, 0), 30)}, now)
	save(false)
	n.Connect(now)
	save(true)
	n.Unsent()
	n.Connect(now)
	save(false)
	if err := (Store{}).Save(n); err != nil {
		t.Error(err)
	}
}

// A damaged file is an error that names it, and the node is as new.
func TestADamagedStoreIsNamed(t *testing.T) {
	t.Parallel()
	store := Store{Dir: t.TempDir()}
	n := NewNode("north", "gw-7", NodeOptions{})
	n.Connect(now)
	n.Birth([]track.Reading{reading(energy, at, uintOf(7, 0), 30), reading(voltage, at, uintOf(2301, -1), 35)}, now)
	if err := store.Save(n); err != nil {
		t.Fatal(err)
	}
	path := store.path(n)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if matches, _ := filepath.Glob(filepath.Join(store.Dir, "north", ".new-*")); len(matches) > 0 {
		t.Errorf("left behind: %v", matches)
	}
	for name, content := range map[string]string{
		"empty": "", "half": string(good[:len(good)/2]), "alias twice": strings.Replace(string(good), `"alias":3`, `"alias":2`, 1),
		"alias over the highest": strings.Replace(string(good), `"alias":3`, `"alias":77`, 1), "lane": strings.Replace(string(good), `"instant"`, `"x"`, 1),
		"type": strings.Replace(string(good), `"type":8`, `"type":16`, 1), "meter": strings.Replace(string(good), `"house-1"`, `"House/1"`, 1),
	} {
		if content == string(good) {
			t.Errorf("%s changes nothing in %s", name, good)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		m := NewNode("north", "gw-7", NodeOptions{})
		if err := store.Load(m); err == nil || !strings.Contains(err.Error(), path) || len(m.devices) != 0 || m.connected || m.alias != softwareAlias {
			t.Errorf("%s: %v, %+v", name, err, m)
		}
	}
}
