package ppp

import (
	"strings"
	"testing"
)

func TestConf(t *testing.T) {
	t.Parallel()
	got, err := ParseConf("ppp.conf", []byte("\xef\xbb\xbf# of the operator\r\ndevice = /dev/ttyUSB2\r\n\r\nbaud=460800\napn=internet.example\nnumber=*99#\nuser=me\npassword=a=b #c\npin=0042\nflow=rtscts"))
	want := Conf{Device: "/dev/ttyUSB2", Baud: 460800, APN: "internet.example", Number: "*99#", User: "me", Password: "a=b #c", PIN: "0042", RTSCTS: true}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ParseConf("ppp.conf", []byte("device=/dev/ttyACM0\nuser=\n"))
	if want := (Conf{Device: "/dev/ttyACM0", Baud: 115200, Number: "*99***1#"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestConfWrong: each error names its line, all come at once, and none has a secret.
func TestConfWrong(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                 "ppp.conf: device is missing",
		"device=ttyUSB2":                   `ppp.conf:1: device: "ttyUSB2": want a path`,
		"device=/dev/../etc/x":             "ppp.conf:1: device: ",
		"device=/dev/a\nbaud=115201":       `ppp.conf:2: baud: "115201": want 9600,`,
		"device=/dev/a\nbaud=":             `ppp.conf:2: baud: "": want`,
		"device=/dev/a\n\napn=a\"b":        "ppp.conf:3: apn: ",
		"device=/dev/a\nnumber=12;AT":      "ppp.conf:2: number: ",
		"device=/dev/a\nnumber=":           "ppp.conf:2: number: ",
		"device=/dev/a\npin=12x4":          "ppp.conf:2: pin: want 4 to 8 digits",
		"device=/dev/a\nflow=xon":          `ppp.conf:2: flow: "xon": want none or rtscts`,
		"device=/dev/a\nspeed=9600":        `ppp.conf:2: unknown key "speed"; there are device,`,
		"device=/dev/a\nhello":             "ppp.conf:2: want KEY=VALUE",
		"device=/dev/a\ndevice=/dev/b":     "ppp.conf:2: device is in line 1 already",
		"device=/dev/a\nuser=a\x1bb":       "ppp.conf:2: user: control characters",
		strings.Repeat("#\n", confMost):    "ppp.conf: over 65536 octets",
		"device=/dev/a\nbaud=1\npin=1\nx=": "ppp.conf:4: unknown key",
		"device=/dev/a\npassword=" + strings.Repeat("s3cret", 50): "ppp.conf:2: password: over 255 octets",
	} {
		_, err := ParseConf("ppp.conf", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "12x4") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

// FuzzConf: nothing panics, and what is taken can be dialled without harm: no value
// ends a command or begins another.
func FuzzConf(f *testing.F) {
	f.Add([]byte("device=/dev/ttyUSB2\napn=a\npin=1234"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConf("ppp.conf", b)
		if err == nil && (c.Device == "" || c.Number == "" || strings.ContainsAny(c.APN+c.Number+c.PIN, "\r\n\"; ")) {
			t.Errorf("%+v", c)
		}
	})
}
