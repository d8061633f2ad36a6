package dlms_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
)

// TestShortNamesOfAMeter is TestServicesOfAMeter by short names.
func TestShortNamesOfAMeter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		grants uint32
		pdu    uint16
	}{
		"everything":     {dlmstest.ShortNames, 1024},
		"small":          {dlmstest.ShortNames, 64},
		"tiny":           {dlmstest.ShortNames, 32},
		"without lists":  {dlmstest.ShortNames &^ 0x200, 1024},
		"general blocks": {dlmstest.ShortNames | 0x200000, 64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			o := dlmstest.Options{MaxPDU: c.pdu, Clients: map[uint16]dlmstest.Login{16: {Conformance: c.grants}}}
			client := dlms.NewClient(onDesk(o, 16), dlms.Options{ShortNames: true, Window: 4, MaxPDU: c.pdu})
			if granted, err := client.Associate(ctx); err != nil || uint32(granted.Conformance) != c.grants || granted.VAA != 0xFA00 {
				t.Fatalf("%+v, %v", granted, err)
			}
			energy := attribute(t, 3, "1-0:1.8.0", 2)
			items, err := client.ReadList(ctx, []dlms.Attribute{energy, attribute(t, 3, "1-0:9.9.9", 2), attribute(t, 3, "1-0:1.8.0", 3)})
			if err != nil || !items[0].Value.Equal(axdr.DoubleLongUnsigned(12345)) || !errors.Is(items[1].Err, dlms.ObjectUndefined) ||
				!items[2].Value.Equal(axdr.Structure(axdr.Integer(-1), axdr.Enum(30))) {
				t.Errorf("list: %v, %v", items, err)
			}
			id := attribute(t, 1, "0-0:96.1.0", 2)
			text := axdr.OctetString(string(make([]byte, 150)))
			if err := client.Set(ctx, id, text); err != nil {
				t.Error(err)
			}
			if v, err := client.Get(ctx, id); err != nil || !v.Equal(text) {
				t.Errorf("set, and got %+v, %v", v, err)
			}
			if err := client.Set(ctx, energy, axdr.Unsigned(1)); !errors.Is(err, dlms.ReadWriteDenied) {
				t.Errorf("set of a register: %v", err)
			}
			if err := client.SetEntries(ctx, id, dlms.Entries{From: 1}, text); !errors.Is(err, dlms.ReadWriteDenied) {
				t.Errorf("set of rows: %v", err)
			}
			objects, err := client.LoadNames(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				if o.Class == 1 && o.Code == id.Code {
					if err := client.WriteNamesUnconfirmed(ctx, []dlms.NamedValue{{Name: o.Name + 8, Value: axdr.OctetString("A")}}); err != nil {
						t.Error(err)
					}
				}
			}
			if v, err := client.Get(ctx, id); err != nil || v.Str != "A" {
				t.Errorf("written unconfirmed, and got %+v, %v", v, err)
			}
			breaker := obis.Code{0, 0, 96, 3, 10, 255}
			if err := client.Disconnect(ctx, breaker); err != nil {
				t.Error(err)
			}
			if s, err := client.ReadDisconnectControl(ctx, breaker); err != nil || s.Connected || s.State != 0 {
				t.Errorf("disconnected: %+v, %v", s, err)
			}
			layout, err := client.ReadLayout(ctx, obis.Code{1, 0, 99, 1, 0, 255})
			if err != nil || layout.Period != 15*time.Minute || layout.Columns[1].Scale != (dlms.ScalerUnit{Scaler: -1, Unit: 30}) {
				t.Fatalf("%+v, %v", layout, err)
			}
			rows, err := client.Profile(ctx, layout, dlms.Rows{Since: noon().Add(-24 * time.Hour), Until: noon()})
			if err != nil || len(rows) != 97 || !rows[96].Time.Equal(noon()) || rows[96].Values[1].Num != 12345 {
				t.Errorf("a day: %d rows, %v", len(rows), err)
			}
			rows, err = client.Profile(ctx, layout, dlms.Rows{FromEntry: 2, ToEntry: 3})
			if err != nil || len(rows) != 2 || rows[0].Values[1].Num != 12147 {
				t.Errorf("entries: %v, %v", fmt.Sprint(rows), err)
			}
			if err := client.Release(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}
