package dlms_test

import (
	"errors"
	"testing"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
)

// TestLongAccess has an access whose request and answer are many times the PDU:
// both go in general blocks.
func TestLongAccess(t *testing.T) {
	t.Parallel()
	for _, o := range []dlms.AccessOptions{{}, {SelfDescriptive: true}, {BreakOnError: true}, {SelfDescriptive: true, BreakOnError: true}} {
		client := dlms.NewClient(onDesk(dlmstest.Options{MaxPDU: 64, Clients: map[uint16]dlmstest.Login{16: {}}}, 16), dlms.Options{Window: 5, MaxPDU: 64})
		if _, err := client.Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		text := axdr.OctetString(string(make([]byte, 100)))
		var list []dlms.AccessItem
		for range 5 {
			list = append(list,
				dlms.AccessItem{Kind: dlms.AccessGet, Attribute: attribute(t, 3, "1-0:1.8.0", 2)},
				dlms.AccessItem{Kind: dlms.AccessSet, Attribute: attribute(t, 1, "0-0:96.1.0", 2), Value: text},
				dlms.AccessItem{Kind: dlms.AccessGet, Attribute: attribute(t, 1, "0-0:96.1.0", 2)},
				dlms.AccessItem{Kind: dlms.AccessGet, Attribute: attribute(t, 7, "1-0:99.1.0", 2), Entries: &dlms.Entries{From: 2, To: 3}},
			)
		}
		list = append(list,
			dlms.AccessItem{Kind: dlms.AccessSet, Attribute: attribute(t, 7, "1-0:99.1.0", 2), Entries: &dlms.Entries{From: 2, To: 3}, Value: axdr.Array()},
			dlms.AccessItem{Kind: dlms.AccessGet, Attribute: attribute(t, 3, "1-0:1.8.0", 2)})
		items, err := client.AccessWith(t.Context(), list, o)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		for i, item := range items[:20] {
			want := []axdr.Value{axdr.DoubleLongUnsigned(12345), {}, text}
			if item.Err != nil || i%4 == 3 && len(item.Value.Items) != 2 || i%4 < 3 && !item.Value.Equal(want[i%4]) {
				t.Errorf("%+v: item %d: %+v", o, i, item)
			}
		}
		if !errors.Is(items[20].Err, dlms.ReadWriteDenied) || o.BreakOnError != errors.Is(items[21].Err, dlms.OtherReason) {
			t.Errorf("%+v: %+v", o, items[20:])
		}
		if _, err := client.Get(t.Context(), attribute(t, 1, "0-0:96.1.0", 2)); err != nil {
			t.Error(err)
		}
	}
}
