package cosem

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/security"
	"gridgate/internal/meter"
)

func TestKnownMeters(t *testing.T) {
	t.Parallel()
	keyed := Protection{Keys: testKeys(t), Policy: security.Authenticated}
	with := func(serial string) []byte {
		return data(t, axdr.Structure(octets("0-0:96.1.0"), axdr.VisibleString(serial), octets("1-0:1.8.0"), axdr.Unsigned(5)))
	}
	named := func(device string) []byte {
		return data(t, axdr.Structure(octets("0-0:42.0.0"), axdr.OctetString(device), octets("1-0:1.8.0"), axdr.Unsigned(5)))
	}
	bare := data(t, axdr.Structure(axdr.Unsigned(5)))
	meters := []Known{
		{ID: "house-1", Serial: "A1", Title: security.Title([]byte(pusher)), Protection: keyed},
		{ID: "house-2", Serial: "A2"},
		{ID: "house-3", Serial: "A3", Host: netip.MustParseAddr("10.0.0.3")},
		{ID: "house-4", Serial: "A4", Host: netip.MustParseAddr("10.0.0.4"), Objects: []dlms.Column{{Attribute: dlms.Attribute{Class: 3, Code: obisOf("1-0:1.8.0"), ID: 2}}}},
	}
	for name, c := range map[string]struct {
		apdu   []byte
		from   string
		strict bool
		id     meter.ID
		serial string
		proven bool
		err    error
	}{
		"by its key":            {seal(t, sealer(t, pusher, security.Authenticated), bare, true), "10.9.9.9:1", true, "house-1", "A1", true, nil},
		"by its key, unnamed":   {seal(t, sealer(t, pusher, security.Authenticated), event(t, 1), false), "10.9.9.9:1", true, "house-1", "A1", true, nil},
		"another's key":         {seal(t, sealer(t, us, security.Authenticated), bare, true), "10.9.9.9:1", true, "", "", false, ErrKeyMissing},
		"in the clear as if":    {with("A1"), "10.9.9.9:1", false, "", "", false, security.ErrWeak},
		"by its serial number":  {with("a2"), "10.9.9.9:1", true, "house-2", "A2", true, nil},
		"by its host":           {bare, "10.0.0.3:5", true, "house-3", "", false, nil},
		"by host and number":    {with("A3"), "10.0.0.3:5", true, "house-3", "A3", true, nil},
		"another at its host":   {with("B3"), "10.0.0.3:5", false, "10.0.0.3", "B3", false, nil},
		"another, not taken":    {with("B3"), "10.0.0.3:5", true, "", "", false, ErrUnknown},
		"a known at its host":   {with("A2"), "10.0.0.3:5", true, "house-2", "A2", true, nil},
		"a keyed at its host":   {with("A1"), "10.0.0.3:5", true, "", "", false, security.ErrWeak},
		"by its device name":    {named("GRGA2"), "10.9.9.9:1", true, "house-2", "A2", true, nil},
		"by host and name":      {named("GRGa3"), "10.0.0.3:5", true, "house-3", "A3", true, nil},
		"another's device name": {named("GRG-A2"), "10.9.9.9:1", true, "", "", false, ErrUnknown},
		"no maker's letters":    {named("GR1A2"), "10.9.9.9:1", true, "", "", false, ErrUnknown},
		"the name of two": {
			data(t, axdr.Structure(octets("0-0:96.1.0"), axdr.OctetString("4711"), octets("0-0:42.0.0"), axdr.OctetString("GRGA2"))),
			"10.9.9.9:1", true, "house-2", "A2", true, nil,
		},
		"both, the name first": {
			data(t, axdr.Structure(octets("0-0:42.0.0"), axdr.OctetString("GRGX9"), octets("0-0:96.1.0"), axdr.OctetString("A2"))),
			"10.9.9.9:1", true, "house-2", "A2", true, nil,
		},
		"unknown":                {with("A9"), "10.9.9.9:1", false, "10.9.9.9", "A9", false, nil},
		"unknown, and not taken": {with("A9"), "10.9.9.9:1", true, "", "", false, ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHeard()
			h.Meters, h.Strict = meters, c.strict
			in := intake{Receiver: &h.Receiver}
			in.take(at(c.from), c.apdu)
			if h.only(t, c.err); c.err != nil {
				return
			}
			p := h.pushes[0]
			row := p.Rows[0]
			if row.Meter != c.id || row.Serial != c.serial || p.Identity.Proven != c.proven || (row.Quality == 0) != (c.serial != "") {
				t.Errorf("%+v, %+v", p.Identity, row)
			}
			if p.Known != strings.HasPrefix(string(c.id), "house") || p.Identity.Exchanged() {
				t.Errorf("known %v, %+v", p.Known, p.Identity)
			}
		})
	}
	h := newHeard()
	h.Meters = meters
	(&intake{Receiver: &h.Receiver}).take(at("10.0.0.4:5"), bare)
	if h.only(t, nil); h.rows != " 03-28T12:00 gateway 1-0:1.8.0=5 identity-not-proven\n" {
		t.Errorf("by the objects of its push setup: %s", h.rows)
	}
	// One that is known by its serial number is heard as it is configured.
	h = newHeard()
	list := []dlms.Column{{Attribute: dlms.Attribute{Class: 1, Code: obisOf("0-0:96.1.0"), ID: 2}}, {Attribute: dlms.Attribute{Class: 3, Code: obisOf("1-0:1.8.0"), ID: 2}}}
	h.Objects = list
	h.Meters = []Known{meters[2], {ID: "house-5", Serial: "A5", Objects: list, TimeZone: time.FixedZone("", 3600)}}
	dated := notification(t, dlms.Notification{
		Kind: dlms.DataNotificationKind, HasTime: true, Time: dlms.DateTime{Year: 2026, Month: 3, Day: 1, Weekday: 0xFF, Hour: 9, Hundredths: 0xFF, Deviation: dlms.NoDeviation},
		Value: axdr.Structure(axdr.OctetString("A5"), axdr.Unsigned(5)),
	})
	(&intake{Receiver: &h.Receiver}).take(at("10.0.0.9:5"), dated)
	if h.only(t, nil); h.pushes[0].Rows[1].Meter != "house-5" || !strings.Contains(h.rows, "03-01T08:00 meter 1-0:1.8.0=5") {
		t.Errorf("by its serial number: %+v, %s", h.pushes[0].Rows, h.rows)
	}
}
