package dlmstest_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/security"
)

func TestNotifications(t *testing.T) {
	t.Parallel()
	s, _ := meterSecurity(t, security.Suite0)
	m := full(dlmstest.Options{Security: s, Clients: map[uint16]dlmstest.Login{16: {}}})
	n := dlmstest.Notice{
		Columns: []dlmstest.Column{{Class: 1, Code: code("0-0:42.0.0"), ID: 2}, {Class: 3, Code: code("1-0:1.8.0"), ID: 2}, {Class: 3, Code: code("1-0:9.9.9"), ID: 2}, {Class: 3, Code: code("1-0:1.8.0"), ID: 1}},
		Time:    start(), Number: 0x01020304, Confirmed: true,
	}
	apdu, err := m.DataNotification(n)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("0f400203040c%x0204"+"0910%x"+"0600003039"+"00"+"09060100010800ff", dlmstest.DateTime(start()), "GRG0000000000001")
	if fmt.Sprintf("%x", apdu) != want {
		t.Errorf("data: %x", apdu)
	}
	n.Time = time.Time{}
	event, err := m.EventNotification(dlmstest.Notice{Columns: n.Columns[1:]})
	if err != nil || fmt.Sprintf("%x", event) != "c20000030100010800ff020600003039" {
		t.Errorf("event: %x, %v", event, err)
	}
	if got := fmt.Sprintf("%x", m.Frame(16, event[:3])); got != "0001000100100003c20000" {
		t.Errorf("wrapper: %s", got)
	}
	if got := fmt.Sprintf("%x", dlmstest.Station{Server: []byte{2, 0x23}}.Notification(16, event[:3])); got[:14] != "7ea01021022303" || got[18:30] != "e6e700c20000" {
		t.Errorf("HDLC: %s", got)
	}
	receiver := security.Receiver{
		Suite: s.Suite, Policy: security.AuthenticatedEncrypted, Title: s.Title, Keys: s.Keys, Direction: security.FromServer, Window: &security.Window{},
	}
	n.Policy = security.AuthenticatedEncrypted
	for range 2 {
		apdu, err := m.DataNotification(n)
		if err != nil || apdu[0] != 0xDB {
			t.Fatalf("protected: %x, %v", apdu, err)
		}
		plain, err := receiver.Unprotect(nil, apdu)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := dlms.ParseNotification(plain); err != nil || got.Value.Items[1].Num != 12345 {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// TestAMeterThatBeganAnew: who heard a meter takes another with its title and
// keys that goes on above, and one that begins at 0 not.
func TestAMeterThatBeganAnew(t *testing.T) {
	t.Parallel()
	s, _ := meterSecurity(t, security.Suite0)
	receiver := security.Receiver{
		Suite: s.Suite, Policy: security.AuthenticatedEncrypted, Title: s.Title, Keys: s.Keys, Direction: security.FromServer, Window: &security.Window{},
	}
	for _, began := range []uint32{0, 100, 100, 0, 1000} {
		s.Counter = began
		apdu, err := full(dlmstest.Options{Security: s}).DataNotification(dlmstest.Notice{Policy: security.AuthenticatedEncrypted})
		if err != nil {
			t.Fatal(err)
		}
		last, seen := receiver.Window.Last(s.Title, s.Keys.Encryption.ID(), security.FromServer)
		if _, err := receiver.Unprotect(nil, apdu); errors.Is(err, security.ErrReplay) != (seen && began <= last) {
			t.Errorf("from %d, after %d: %v", began, last, err)
		}
	}
}

func TestPushSetup(t *testing.T) {
	t.Parallel()
	var sent []dlmstest.Push
	p := dlmstest.Push{Code: code("0-7:25.9.0"), Columns: []dlmstest.Column{{Class: 3, Code: code("1-0:1.8.0"), ID: 2}}, Destination: "127.0.0.1:4059"}
	o := dlmstest.PushSetup(p, func(p dlmstest.Push) { sent = append(sent, p) })
	destination := axdr.Structure(axdr.Enum(1), axdr.OctetString("127.0.0.1:5000"), axdr.Enum(0))
	for n, c := range []struct {
		got  dlmstest.Result
		want dlmstest.Result
	}{
		{o.Write(3, destination), dlmstest.Success},
		{o.Write(3, axdr.OctetString("127.0.0.1:5000")), dlmstest.TypeUnmatched},
		{o.Write(3, axdr.Structure(axdr.Enum(1), axdr.Unsigned(1), axdr.Enum(0))), dlmstest.TypeUnmatched},
		{o.Write(2, axdr.Array()), dlmstest.Success},
		{o.Write(2, axdr.Array(axdr.Structure())), dlmstest.TypeUnmatched},
		{o.Write(9, axdr.Array()), dlmstest.ReadWriteDenied},
	} {
		if c.got != c.want {
			t.Errorf("write %d: %d, want %d", n, c.got, c.want)
		}
	}
	for argument, want := range map[axdr.Tag]dlmstest.Result{axdr.TagInteger: 0, axdr.TagNull: 0, axdr.TagUnsigned: dlmstest.TypeUnmatched} {
		if _, got := o.Act(1, axdr.Value{Tag: argument}); got != want {
			t.Errorf("push with %v: %d", argument, got)
		}
	}
	if _, got := o.Act(2, axdr.Null()); got != dlmstest.ReadWriteDenied || len(sent) != 2 || sent[0].Destination != "127.0.0.1:5000" || sent[0].Transport != 1 || len(sent[0].Columns) != 0 {
		t.Errorf("%d, %+v", got, sent)
	}
}
