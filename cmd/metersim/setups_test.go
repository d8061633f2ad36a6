package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
)

// oneMeter makes a meter as the verb does.
func oneMeter(t *testing.T, change func(*dlmsOptions)) *dlmsMeter {
	t.Helper()
	o := dlmsOptions{prefix: "GRG", transport: transportHDLC, count: 1, every: 5, capture: 15 * time.Minute}
	o.hdlc = hdlcOptions{info: 128, window: 1, inactivity: 2 * time.Minute}
	o.push = pushOptions{as: "data", client: 102}
	o.secured.ref, o.secured.protection = "ln", "none"
	if change != nil {
		change(&o)
	}
	secured, err := o.secured.parse()
	if err != nil {
		t.Fatal(err)
	}
	d, err := o.meter(0, secured, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// asker asks a session in memory.
type asker struct {
	t *testing.T
	s *dlmstest.Session
}

func newAsker(t *testing.T, d *dlmsMeter) asker {
	t.Helper()
	a := asker{t, d.meter.NewSession()}
	hello := "\x60\x1D\xA1\x09\x06\x07\x60\x85\x74\x05\x08\x01\x01\xBE\x10\x04\x0E\x01\x00\x00\x00\x06\x5F\x1F\x04\x00\x80\x00\x1D\xFF\xFF"
	if out := a.s.Answer(17, []byte(hello)); len(out) != 1 || out[0][0] != 0x61 || out[0][17] != 0 {
		t.Fatalf("association: %x", out)
	}
	return a
}

// get gives the octets of an attribute, or the result.
func (a asker) get(at dlms.Attribute) (octets []byte, result byte) {
	a.t.Helper()
	out := a.s.Answer(17, dlms.AppendGet(nil, 0xC1, at, nil))
	if len(out) != 1 || len(out[0]) < 5 || out[0][1] != 1 {
		return nil, 255 // in blocks
	}
	if out[0][3] != 0 {
		return nil, out[0][4]
	}
	return out[0][4:], 0
}

func (a asker) set(at dlms.Attribute, octets []byte) byte {
	a.t.Helper()
	b := append([]byte{0xC1, 1, 0xC1, byte(at.Class >> 8), byte(at.Class)}, at.Code[:]...)
	out := a.s.Answer(17, append(append(b, byte(at.ID), 0), octets...))
	if len(out) != 1 || len(out[0]) != 4 {
		a.t.Fatalf("%v: set answered %x", at, out)
	}
	return out[0][3]
}

func (a asker) run(at dlms.Attribute, octets []byte) byte {
	a.t.Helper()
	b := append([]byte{0xC3, 1, 0xC1, byte(at.Class >> 8), byte(at.Class)}, at.Code[:]...)
	out := a.s.Answer(17, append(append(b, byte(at.ID), 1), octets...))
	if len(out) != 1 || len(out[0]) < 4 {
		a.t.Fatalf("%v: action answered %x", at, out)
	}
	return out[0][3]
}

// TestEveryAttribute reads all that the list of objects says can be read; what
// can be set takes what it has, and nothing of another type.
func TestEveryAttribute(t *testing.T) {
	t.Parallel()
	d := oneMeter(t, nil)
	a := newAsker(t, d)
	list := d.objects(t)
	classes := map[uint16]int{}
	for _, o := range list {
		class, name := uint16(o.Items[0].Num), obis.Code([]byte(o.Items[2].Str))
		classes[class]++
		for _, access := range o.Items[3].Items[0].Items {
			at := dlms.Attribute{Class: class, Code: name, ID: int8(access.Items[0].Num)}
			octets, result := a.get(at)
			if may := access.Items[1].Num&1 == 1; (result == 0 || result == 255) != may {
				t.Errorf("%v: result %d, access %d", at, result, access.Items[1].Num)
			}
			if access.Items[1].Num != 3 || result != 0 {
				continue
			}
			if got := a.set(at, octets); got != 0 {
				t.Errorf("%v: set to %x, as it was: %d", at, octets, got)
			}
			other := []byte{byte(axdr.TagFloat64), 0, 0, 0, 0, 0, 0, 0, 0}
			if got := a.set(at, other); got != byte(dlmstest.TypeUnmatched) {
				t.Errorf("%v: set to a float: %d", at, got)
			}
		}
	}
	for _, class := range []uint16{1, 3, 4, 5, 7, 8, 9, 11, 15, 17, 18, 19, 20, 21, 22, 23, 40, 41, 42, 43, 45, 47, 62, 64, 70, 71} {
		if classes[class] == 0 {
			t.Errorf("no object of class %d", class)
		}
	}
	if classes[7] < 9 {
		t.Errorf("%d profiles and logs", classes[7])
	}
}

// objects gives the list of objects of client 17.
func (d *dlmsMeter) objects(t *testing.T) []axdr.Value {
	t.Helper()
	c := dlms.NewClient(direct{d.meter.NewSession(), new([][]byte)}, dlms.Options{})
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, err := c.Get(t.Context(), dlms.Attribute{Class: 15, Code: obis.Code{0, 0, 40, 0, 0, 255}, ID: 2})
	if err != nil {
		t.Fatal(err)
	}
	return v.Items
}

// TestMethods has methods do what they are for.
func TestMethods(t *testing.T) {
	t.Parallel()
	a := newAsker(t, oneMeter(t, nil))
	at := func(class uint16, code string, id int8) dlms.Attribute {
		c, err := obis.Parse(code)
		if err != nil {
			t.Fatal(err)
		}
		return dlms.Attribute{Class: class, Code: c, ID: id}
	}
	get := func(what string, x dlms.Attribute, want string) {
		t.Helper()
		if got, result := a.get(x); result != 0 || fmt.Sprintf("%x", got) != want {
			t.Errorf("%s: %x, %d, want %s", what, got, result, want)
		}
	}
	run := func(what string, x dlms.Attribute, argument string, want byte) {
		t.Helper()
		if got := a.run(x, []byte(argument)); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	special := at(11, "0-0:11.0.0", 2)
	run("a special day", at(11, "0-0:11.0.0", 1), "\x02\x03\x12\x00\x02\x09\x05\xFF\xFF\x05\x01\xFF\x11\x02", 0)
	get("the days", special, "0102"+"0203120001"+"0905ffff0101ff"+"1102"+"0203120002"+"0905ffff0501ff"+"1102")
	run("one day less", at(11, "0-0:11.0.0", 2), "\x12\x00\x01", 0)
	run("one that is not", at(11, "0-0:11.0.0", 2), "\x12\x00\x09", byte(dlmstest.ObjectUndefined))
	run("a day of another type", at(11, "0-0:11.0.0", 1), "\x11\x01", byte(dlmstest.TypeUnmatched))
	get("the calendar", at(20, "0-0:13.0.0", 2), "090443414c31")
	run("the other calendar", at(20, "0-0:13.0.0", 1), "\x0F\x00", 0)
	get("the calendar", at(20, "0-0:13.0.0", 2), "090443414c32")
	run("tariff 2", at(9, "0-0:10.0.100", 1), "\x12\x00\x02", 0)
	get("tariff", at(1, "0-0:96.14.0", 2), "1102")
	rows := func() string {
		v, _ := a.get(at(7, "0-0:98.1.0", 7))
		return fmt.Sprintf("%x", v)
	}
	before := rows()
	run("end of billing", at(9, "0-0:10.0.1", 1), "\x12\x00\x01", 0)
	if rows() == before {
		t.Errorf("still %s rows", before)
	}
	for method, want := range map[int8]byte{1: 0, 2: 0, 3: 0} {
		run("the clock", at(8, "0-0:1.0.0", method), "\x0F\x00", want)
	}
	run("a time that is not preset", at(8, "0-0:1.0.0", 4), "\x0F\x00", byte(dlmstest.OtherReason))
	preset := "\x09\x0C\x07\xEF\x02\x03\xFF\x04\x05\x06\x00\x80\x00\x00"
	run("preset", at(8, "0-0:1.0.0", 5), "\x02\x03"+preset+preset+preset, 0)
	run("the preset time", at(8, "0-0:1.0.0", 4), "\x0F\x00", 0)
	if got, _ := a.get(at(8, "0-0:1.0.0", 2)); len(got) != 14 || string(got[2:6]) != "\x07\xEF\x02\x03" {
		t.Errorf("the clock is %x", got)
	}
	run("push", at(40, "0-0:25.9.0", 1), "\x0F\x00", 0)
	for i, step := range []struct {
		method    int8
		argument  string
		want      byte
		status, n string // image_transfer_status and first block not transferred
	}{
		{2, "\x02\x02\x06\x00\x00\x00\x00\x09\x01A", byte(dlmstest.OtherReason), "1600", "0600000000"},
		{1, "\x02\x02\x09\x03IMG\x06\x00\x00\x00\xFA", 0, "1601", "0600000000"},
		{2, "\x02\x02\x06\x00\x00\x00\x01\x09\x32" + strings.Repeat("B", 50), 0, "1601", "0600000000"},
		{3, "\x0F\x00", byte(dlmstest.OtherReason), "1601", "0600000000"},
		{2, "\x02\x02\x06\x00\x00\x00\x00\x09\x81\xC8" + strings.Repeat("A", 200), 0, "1601", "0600000002"},
		{4, "\x0F\x00", byte(dlmstest.OtherReason), "1601", "0600000002"},
		{3, "\x0F\x00", 0, "1603", "0600000002"},
		{4, "\x0F\x00", 0, "1606", "0600000002"},
	} {
		run(fmt.Sprintf("image, step %d", i), at(18, "0-0:44.0.0", step.method), step.argument, step.want)
		get(fmt.Sprintf("image state, step %d", i), at(18, "0-0:44.0.0", 6), step.status)
		get(fmt.Sprintf("image blocks, step %d", i), at(18, "0-0:44.0.0", 4), step.n)
	}
}

func TestTariffsAddUp(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 7, 1, 12, 3, 4, 0, time.UTC)
	h := household{number: 1, now: func() time.Time { return at }}
	sum := uint64(0)
	for _, o := range h.tariffRegisters() {
		v, ok := o.Read(2, nil)
		ended, _ := o.Read(3, nil)
		if !ok {
			t.Fatalf("class %d", o.Class)
		}
		if o.Class == 3 {
			sum += v.Num
			continue
		}
		v = ended
		drawn, _ := h.power(at)
		if diff := float64(v.Num) - drawn; diff > 20 || diff < -20 {
			t.Errorf("demand %d, power %v", v.Num, drawn)
		}
	}
	if drawn, _ := h.energy(at); sum != uint64(10*drawn) {
		t.Errorf("tariffs are %d, all is %v", sum, 10*drawn)
	}
}

// TestARestartedMeterCountsOn: what it sends is above what it sent before it was
// stopped, and not so far that it is taken for another.
func TestARestartedMeterCountsOn(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	const answers = 60
	for _, rest := range []time.Duration{7 * time.Second, time.Minute, 24 * time.Hour} {
		first, next := firstCounter(began), firstCounter(began.Add(rest))
		if next <= first+answers || next-first > security.MaxJump {
			t.Errorf("after %v: %d, and it was %d", rest, next, first)
		}
	}
	o := securedOptions{auth: "gmac", client: 1, protection: "authenc", ref: "ln"}
	s, err := o.parse()
	if err != nil {
		t.Fatal(err)
	}
	if n := s.security(1).Counter; n < firstCounter(began) {
		t.Errorf("it begins at %d", n)
	}
}
