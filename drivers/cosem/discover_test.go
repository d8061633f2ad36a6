package cosem

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gridgate/dlms"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

func list(found []Found) string {
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintf(&b, "%s %v %v", f.Name, f.Lane, f.Every)
		for _, c := range f.Channels {
			b.WriteString(" " + c.Short())
		}
		if f.Profile != "" {
			b.WriteString(" rows of " + f.Profile.Short())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func profileOf(code string, period uint32) dlmstest.Object {
	return dlmstest.Profile(obisOf(code), columns(), period, given())
}

// What is read of a meter follows from its list of objects, which is read once.
func TestDiscover(t *testing.T) {
	t.Parallel()
	o := append(objects("A1"),
		dlmstest.Register(obisOf("1-0:1.8.1"), -1, 30, fixed(units(1))),
		dlmstest.Register(obisOf("1-0:1.8.0*1"), -1, 30, fixed(units(1))), // of a former period
		dlmstest.Data(obisOf("0-0:97.98.0"), fixed(units(0))),
		dlmstest.Data(obisOf("0-0:97.98.10"), fixed(units(0))), // the filter
		dlmstest.Data(obisOf("0-0:97.98.20"), fixed(units(0))),
		profileOf("0-0:99.98.1", 0), profileOf("0-0:99.98.0", 0), profileOf("1-0:99.2.0", 86400),
		profileOf("1-0:99.1.0", 1800), profileOf("0-0:98.1.0", 0), profileOf("1-0:94.91.0", 0), profileOf("0-1:24.3.0", 3600),
	)
	f := &flash{}
	r := newRig(t, dlmstest.Options{Objects: o})
	got, err := r.driver(t, Config{Serial: "A1", Caches: f}).Discover(t.Context())
	want := `auto-alarm alarm 15m0s 0-0:97.98.0 0-0:97.98.20
auto-alarm-0-0-99-98-0 alarm 15m0s rows of 0-0:99.98.0
auto-alarm-0-0-99-98-1 alarm 15m0s rows of 0-0:99.98.1
auto-billing-0-0-98-1-0 billing 6h0m0s rows of 0-0:98.1.0
auto-billing-1-0-99-2-0 billing 6h0m0s rows of 1-0:99.2.0
auto-interval-1-0-99-1-0 interval 30m0s rows of 1-0:99.1.0
auto-interval-0-1-24-3-0 interval 1h0m0s rows of 0-1:24.3.0/7:2
auto-instant instant 15m0s 1-0:1.8.0 1-0:2.8.0 1-0:16.7.0 1-0:32.7.0 1-0:1.8.1 1-0:1.4.0/5:3 1-0:1.6.0 1-0:1.6.0/4:5
`
	if s := list(got); err != nil || s != want {
		t.Fatalf("%v, got\n%swant\n%s", err, s, want)
	}
	for _, g := range got {
		if _, err := meter.ParseID(g.Name); err != nil {
			t.Error(err)
		}
	}
	r.asked()
	again, err := r.driver(t, Config{Serial: "A1", Caches: f}).Discover(t.Context())
	if err != nil || list(again) != want || asks(r.asked(), "/15:") {
		t.Errorf("after a restart: %v, %s", err, list(again))
	}
}

// Of a meter that keeps no billing rows the totals are read around midnight.
func TestDiscoverWithoutBillingProfile(t *testing.T) {
	t.Parallel()
	got, err := newRig(t, dlmstest.Options{Objects: objects("A1")}).driver(t, Config{}).Discover(t.Context())
	if err != nil || len(got) != 2 || list(got[:1]) != "auto-billing billing 24h0m0s 1-0:1.8.0 1-0:2.8.0\n" {
		t.Errorf("%v, %s", err, list(got))
	}
}

// However much a meter has, what is read is bounded, and does not depend on the
// order of the list.
func TestArrangeIsBounded(t *testing.T) {
	t.Parallel()
	var all []Object
	add := func(class uint16, c obis.Code, readable ...int8) {
		all = append(all, Object{Object: dlms.Object{Class: class, Code: c}, HasRights: readable != nil, Readable: readable})
	}
	for i := range 200 {
		add(3, obis.Code{1, 0, byte(i%80 + 1), byte(7 + i/100), byte(i % 3), 255})
		add(1, obis.Code{0, byte(i), 97, 98, 0, 255})
		add(7, obis.Code{0, byte(i), 99, 98, 0, 255})
		add(7, obis.Code{1, byte(i), 99, 1, 0, 255}, 3) // its buffer may not be read
	}
	count := func(all []Object) (string, int, int) {
		found := arrange(chooseProfiles(all), nil, all)
		channels, profiles := 0, 0
		for _, f := range found {
			if f.Lane == meter.Instant {
				channels += len(f.Channels)
			}
			if f.Profile != "" {
				profiles++
			}
		}
		return list(found), channels, profiles
	}
	text, channels, profiles := count(all)
	if channels != maxFound || profiles != maxProfiles {
		t.Errorf("%d channels, %d profiles:\n%s", channels, profiles, text)
	}
	slices.Reverse(all)
	if other, _, _ := count(all); other != text {
		t.Errorf("by another order\n%snot\n%s", other, text)
	}
	if text, channels, profiles := count(nil); text != "" || channels+profiles != 0 {
		t.Errorf("of nothing: %s", text)
	}
}
