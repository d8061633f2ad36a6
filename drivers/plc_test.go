package drivers

import (
	"testing"

	"gridgate/drivers/address"
	"gridgate/drivers/line"
)

func TestBridgesAndPlaces(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"plc+prime://h?node=ZIV7":              "ZIV7",
		"plc+gateway://h?node=0A&network=3":    "\x03\x0A",
		"plc+g3://[fd00::1]":                   "[fd00::1]:4059",
		"plc+gateway:///dev/ttyS1?node=0A":     "", // a line of its own
		"dlms+wrapper://h":                     "",
		"modbus+tcp://h?unit=1&model=anything": "",
	} {
		a, err := address.Parse(url)
		if err != nil {
			t.Fatal(err)
		}
		b := OpenBridge(a, line.Options{}, false, nil)
		if (b != nil) != (want != "") || b != nil && (NodeName(a) != want || b.String() != a.Line) {
			t.Errorf("%s: %v, %q", url, b, NodeName(a))
		}
		if b != nil {
			again := a
			again.Parallel = 9
			if Place(a) != Place(again) {
				t.Errorf("%s is another place with parallel=9", url)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
