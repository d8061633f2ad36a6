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

func TestForeignTopicsAreToldFromBadOnes(t *testing.T) {
	t.Parallel()
	for topic, foreign := range map[string]bool{
		"":                                            true,
		"gridgate/1":                                  true,
		"gridgate/2/a/b/up/state":                     true,
		"gridgate/1/a/b/down/command":                 true,
		"gridgate/1/a/b/up/audit":                     true,
		"gridgate/1/a/b/up/state/x":                   true,
		"gridgate/1/a/b/up/readings":                  true,
		"gridgate/1/A/b/up/state":                     false,
		"gridgate/1//b/up/state":                      false,
		"gridgate/1/a/b/up/readings/urgent":           false,
		"gridgate/1/a/b/up/catalog/0123":              false,
		"gridgate/1/a/b/up/catalog/01234567890123xx":  false,
		"gridgate/1/a/b/up/catalog/0123456789ABCDEF":  false,
		"gridgate/1/a/b/up/catalog/0123456789abcdef0": false,
	} {
		if got, err := mqtt.ParseTopic(topic); err == nil || errors.Is(err, mqtt.ErrForeignTopic) != foreign {
			t.Errorf("%q: %+v, %v", topic, got, err)
		}
	}
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
