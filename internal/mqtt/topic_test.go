package mqtt_test

import (
	"errors"
	"strings"
	"testing"

	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

func TestTopicsOfTheContract(t *testing.T) {
	t.Parallel()
	hash := [8]byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF}
	for want, got := range map[string]string{
		"gridgate/1/north/gw-1/up/readings/alarm":           mqtt.ReadingsTopic("north", "gw-1", meter.Alarm),
		"gridgate/1/north/gw-1/up/readings/instant":         mqtt.ReadingsTopic("north", "gw-1", meter.Instant),
		"gridgate/1/north/gw-1/up/catalog/0123456789abcdef": mqtt.CatalogueTopic("north", "gw-1", hash),
		"gridgate/1/north/gw-1/up/state":                    mqtt.StateTopic("north", "gw-1"),
		"gridgate/1/north/gw-1/down/ack/billing":            mqtt.AckTopic("north", "gw-1", meter.Billing),
		"gridgate/1/north/gw-1/down/resend/interval":        mqtt.ResendTopic("north", "gw-1", meter.Interval),
		"gridgate/1/north/gw-1/down/catalog":                mqtt.CatalogueRequestTopic("north", "gw-1"),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		parsed, err := mqtt.ParseTopic(want)
		if err != nil || parsed.String() != want || parsed.Site != "north" || parsed.Gateway != "gw-1" {
			t.Errorf("%s reads back as %+v, %v", want, parsed, err)
		}
	}
	if got := mqtt.UpFilter("", ""); got != "gridgate/1/+/+/up/#" {
		t.Error(got)
	}
	if got := mqtt.UpFilter("north", ""); got != "gridgate/1/north/+/up/#" {
		t.Error(got)
	}
}

func TestTopicsOfOrders(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"gridgate/1/north/gw-1/down/config":                           mqtt.OrderTopic("north", "gw-1", "", "config"),
		"gridgate/1/north/_group/west/down/firmware":                  mqtt.OrderTopic("north", "", "west", "firmware"),
		"gridgate/1/north/gw-1/up/config":                             mqtt.ConfigTopic("north", "gw-1"),
		"gridgate/1/north/gw-1/up/result/cmd-17":                      mqtt.ResultTopic("north", "gw-1", "cmd-17"),
		"gridgate/1/north/gw-1/up/result/cmd-17/12":                   mqtt.PartTopic("north", "gw-1", "cmd-17", 12),
		"gridgate/1/north/gw-1/up/audit":                              mqtt.AuditTopic("north", "gw-1"),
		"gridgate/1/north/gw-1/up/firmware":                           mqtt.FirmwareTopic("north", "gw-1"),
		"gridgate/1/north/_firmware/00ff000000000000000000000000abcd": mqtt.PartOfFirmware("north", [16]byte{1: 0xFF, 14: 0xAB, 15: 0xCD}),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if parsed, err := mqtt.ParseTopic(want); err != nil || parsed.String() != want {
			t.Errorf("%s reads back as %+v, %v", want, parsed, err)
		}
	}
}

func TestForeignTopicsAreToldFromBadOnes(t *testing.T) {
	t.Parallel()
	for topic, foreign := range map[string]bool{
		"":                                                          true,
		"gridgate/1":                                                true,
		"gridgate/2/a/b/up/state":                                   true,
		"gridgate/1/a/b/down/recipe":                                true,
		"gridgate/1/a/b/down/config/x":                              true,
		"gridgate/1/a/b/up/result":                                  true,
		"gridgate/1/a/b/up/result/A":                                false,
		"gridgate/1/a/b/up/result/a/0":                              false,
		"gridgate/1/a/b/up/result/a/01":                             false,
		"gridgate/1/a/b/up/result/a/1/2":                            true,
		"gridgate/1/a/_group/b/up/config":                           true,
		"gridgate/1/a/_group/b/down/ack":                            true,
		"gridgate/1/a/_group/B/down/config":                         false,
		"gridgate/1/a/_groups/b/down/config":                        false,
		"gridgate/1/a/b/up/firmware/x":                              true,
		"gridgate/1/a/_firmware":                                    true,
		"gridgate/1/a/_firmware/00FF":                               false,
		"gridgate/1/a/_firmware/00FF000000000000000000000000ABCD":   false,
		"gridgate/1/a/_firmware/00ff000000000000000000000000abcd00": false,
		"gridgate/1/A/_firmware/00ff000000000000000000000000abcd":   false,
		"gridgate/1/a/_firmware/00ff000000000000000000000000abcd/x": false,
		"gridgate/1/a/b/up/ack/alarm":                               true,
		"gridgate/1/a/b/down/state":                                 true,
		"gridgate/1/a/b/down/ack/urgent":                            false,
		"gridgate/1/a/b/up/state/x":                                 true,
		"gridgate/1/a/b/up/readings":                                true,
		"gridgate/1/A/b/up/state":                                   false,
		"gridgate/1//b/up/state":                                    false,
		"gridgate/1/a/b/up/readings/urgent":                         false,
		"gridgate/1/a/b/up/catalog/0123":                            false,
		"gridgate/1/a/b/up/catalog/01234567890123xx":                false,
		"gridgate/1/a/b/up/catalog/0123456789ABCDEF":                false,
		"gridgate/1/a/b/up/catalog/0123456789abcdef0":               false,
	} {
		if got, err := mqtt.ParseTopic(topic); err == nil || errors.Is(err, mqtt.ErrForeignTopic) != foreign {
			t.Errorf("%q: %+v, %v", topic, got, err)
		}
	}
}

func TestPayloadsOfTheFog(t *testing.T) {
	t.Parallel()
	c := mqtt.Confirmation{Epoch: 0xC0FFEE00C0FFEE, Sequence: 1<<64 - 1}
	if got := string(c.AppendJSON(nil)); got != `{"epoch":"00c0ffee00c0ffee","sequence":18446744073709551615}` {
		t.Error(got)
	}
	if got, err := mqtt.ParseConfirmation(c.AppendJSON(nil)); got != c || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	r := mqtt.Range{Epoch: 1, First: 2, Last: 3}
	if got := string(r.AppendJSON(nil)); got != `{"epoch":"0000000000000001","first":2,"last":3}` {
		t.Error(got)
	}
	if got, err := mqtt.ParseRange([]byte(`{ "last":3, "more":[1], "first":2, "epoch":"0000000000000001"}`)); got != r || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	hash := [8]byte{1, 0xAB, 7: 0xFF}
	if got, ok := mqtt.ParseCatalogueRequest(mqtt.CatalogueRequestOf(hash)); !ok || got != hash {
		t.Errorf("%x, %v", got, ok)
	}
	for _, none := range []string{"", "{}", "null", `{"catalogue":"01"}`, `{"catalogue":"g123456789abcdef"}`, `{"catalogue":1}`} {
		if got, ok := mqtt.ParseCatalogueRequest([]byte(none)); ok {
			t.Errorf("%s: %x", none, got)
		}
	}
	for _, bad := range []string{
		"", "null", "1", "{}", `{"epoch":"1","sequence":1}`, `{"epoch":"000000000000000g","sequence":1}`,
		`{"epoch":"0000000000000001"}`, `{"epoch":"0000000000000001","sequence":-1}`, `{"epoch":"0000000000000001","sequence":1.5}`,
		`{"epoch":"0000000000000001","sequence":"1"}`, `{"epoch":"0000000000000001","first":0,"last":1}`,
		`{"epoch":"0000000000000001","first":3,"last":2}`, `{"epoch":"0000000000000001","first":3}`,
		`{"epoch":"0000000000000001","sequence":1,"first":1,"last":1}` + strings.Repeat(" ", 1024),
	} {
		if got, err := mqtt.ParseConfirmation([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
		if got, err := mqtt.ParseRange([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

func FuzzDown(f *testing.F) {
	f.Add([]byte(`{"epoch":"0000000000000001","sequence":5,"first":2,"last":3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := mqtt.ParseConfirmation(b); err == nil {
			if again, err := mqtt.ParseConfirmation(c.AppendJSON(nil)); err != nil || again != c {
				t.Errorf("%+v is read back as %+v, %v", c, again, err)
			}
		}
		if r, err := mqtt.ParseRange(b); err == nil {
			if again, err := mqtt.ParseRange(r.AppendJSON(nil)); err != nil || again != r || r.First < 1 || r.First > r.Last {
				t.Errorf("%+v is read back as %+v, %v", r, again, err)
			}
		}
	})
}

func FuzzParseTopic(f *testing.F) {
	f.Add("gridgate/1/a/b/up/readings/alarm")
	f.Add("gridgate/1/a/b/up/catalog/0123456789abcdef")
	f.Add("gridgate/1/a/b/up/state")
	f.Fuzz(func(t *testing.T, s string) {
		topic, err := mqtt.ParseTopic(s)
		if err == nil && topic.String() != s {
			t.Errorf("%q is read as %+v, which is %q", s, topic, topic)
		}
	})
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"mqtt://broker":           "broker:1883 false",
		"mqtt://127.0.0.1:18":     "127.0.0.1:18 false",
		"mqtts://broker.example/": "broker.example:8883 true",
		"mqtts://[::1]:1":         "[::1]:1 true",
	} {
		address, secure, err := mqtt.ParseURL(in)
		if got := address + map[bool]string{true: " true", false: " false"}[secure]; err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "broker:1883", "http://x", "mqtt://", "mqtt://u:hunter2@x", "mqtt://x/y", "mqtt://x?password=hunter2", "mqtt://x:hunter2"} {
		_, _, err := mqtt.ParseURL(bad)
		if err == nil {
			t.Errorf("%q was taken", bad)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error tells the password: %v", bad, err)
		}
	}
}
