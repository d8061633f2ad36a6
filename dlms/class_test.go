package dlms

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// shelf is a Transport to a meter with these attributes; the others it does not
// have. It does every method, and keeps what was set and run.
type shelf struct {
	t      *testing.T
	values map[Attribute]axdr.Value
	done   []string
	answer []byte
}

func (m *shelf) Send(_ context.Context, apdu []byte) error {
	r := reader{b: apdu}
	tag, form, invoke := r.u8(), r.u8(), r.u8()
	switch {
	case tag == tagGetRequest:
		n, attributes := 1, r
		m.answer = []byte{tagGetResponse, formNormal, invoke}
		if form == formList {
			n, _ = attributes.count()
			m.answer = []byte{tagGetResponse, formList, invoke, byte(n)}
		}
		for range n {
			v, ok := m.values[attributes.attribute()]
			attributes.u8()
			if !ok {
				m.answer = append(m.answer, 1, byte(ObjectUndefined))
				continue
			}
			var err error
			if m.answer, err = v.AppendBinary(append(m.answer, 0)); err != nil {
				m.t.Fatal(err)
			}
		}
	case tag == tagSetRequest && form == formNormal:
		m.done = append(m.done, fmt.Sprintf("set %v %X", r.attribute(), r.b))
		m.answer = []byte{tagSetResponse, formNormal, invoke, 0}
	case tag == tagActionRequest && form == formNormal:
		m.done = append(m.done, fmt.Sprintf("run %v %X", r.attribute(), r.b))
		m.answer = []byte{tagActionResponse, formNormal, invoke, 0, 0}
	default:
		m.t.Fatalf("%x", apdu)
	}
	return nil
}

func (m *shelf) Receive(_ context.Context, b []byte) ([]byte, error) {
	return append(b, m.answer...), nil
}

// object puts the attributes of an object on a shelf, from attribute 2, as
// hexadecimal.
func (m *shelf) object(class uint16, code obis.Code, attributes ...string) {
	for i, h := range attributes {
		v, n, err := axdr.Parse(unhex(m.t, h))
		if err != nil || n != len(strings.ReplaceAll(h, " ", ""))/2 {
			m.t.Fatalf("%s: %v", h, err)
		}
		m.values[Attribute{class, code, int8(i + 2)}] = v
	}
}

func shelved(t *testing.T) (*Client, *shelf) {
	t.Helper()
	c, _ := granted(t, everything, 0)
	m := &shelf{t: t, values: map[Attribute]axdr.Value{}}
	c.transport = m
	return c, m
}

const (
	someTime = "090C 07E8060F0614172D00FF8880"
	someCode = "0906 0000600A01FF"
)

func someDateTime() DateTime {
	return DateTime{Year: 2024, Month: 6, Day: 15, Weekday: 6, Hour: 20, Minute: 23, Second: 45, Deviation: -120, Status: 0x80}
}

func someScript(n uint16) Script { return Script{obis.Code{0, 0, 96, 10, 1, 255}, n} }

// reading makes a function that reads an object one that gives anything.
func reading[T any](read func(context.Context, obis.Code) (T, error)) func(context.Context, obis.Code) (any, error) {
	return func(ctx context.Context, code obis.Code) (any, error) { return read(ctx, code) }
}

func TestClasses(t *testing.T) {
	t.Parallel()
	c, m := shelved(t)
	register := func(class uint16) func(context.Context, obis.Code) (Register, error) {
		return func(ctx context.Context, code obis.Code) (Register, error) { return c.ReadRegister(ctx, class, code) }
	}
	scale := ScalerUnit{-2, 30}
	script := func(n int) string { return fmt.Sprintf("0202"+someCode+"12%04X", n) }
	column := "0204 120003 0906 0100010800FF 0F02 120005"
	later := "0206 120003 0906 0100010800FF 0F02 120005 0202 1600 00 0100"
	monitored := "0203 120003 0906 0100010800FF 0F02"
	for i, object := range []struct {
		class      uint16
		attributes string // by lines
		read       func(context.Context, obis.Code) (any, error)
		want       any
	}{
		{3, "06000004D2 \n 0202 0FFE 161E", reading(register(3)), Register{Value: axdr.DoubleLongUnsigned(1234), Scale: scale}},
		{4, "06000004D2 \n 0202 0FFE 161E \n 1107 \n" + someTime, reading(register(4)), Register{
			Value: axdr.DoubleLongUnsigned(1234), Scale: scale, Status: axdr.Unsigned(7), CaptureTime: someDateTime(),
		}},
		{5, "1205DC \n 1205DD \n 0202 0FFE 161E \n 1107 \n" + someTime + "\n" + someTime + "\n 0600000384 \n 120003", reading(register(5)), Register{
			Value: axdr.LongUnsigned(1500), Last: axdr.LongUnsigned(1501), Scale: scale, Status: axdr.Unsigned(7),
			CaptureTime: someDateTime(), Start: someDateTime(), Period: 900, Periods: 3,
		}},
		{8, someTime + "\n 10FFC4 \n 1180 \n" + someTime + "\n" + someTime + "\n 0F3C \n 0301 \n 1601", reading(c.ReadClock), Clock{
			Time: someDateTime(), Zone: -60, Status: 0x80, Begin: someDateTime(), End: someDateTime(), Deviation: 60, Enabled: true, Base: 1,
		}},
		{11, "0101 0203 120001 0905 07E80101FF 1102", reading(c.ReadSpecialDays), []SpecialDay{{1, "\x07\xE8\x01\x01\xFF", 2}}},
		{18, "0600000080 \n 0409 8000 \n 0600000001 \n 0301 \n 1601", reading(c.ReadImage), Image{
			BlockSize: 128, Blocks: axdr.BitString("\x80\x00", 9), First: 1, Enabled: true, Status: 1,
		}},
		{20, "090141 \n 010111 01 \n 0100 \n 0100 \n 090142 \n 0100 \n 0100 \n 010111 02 \n" + someTime, reading(c.ReadActivityCalendar), ActivityCalendar{
			Active: CalendarTables{Name: "A", Seasons: []axdr.Value{axdr.Unsigned(1)}}, Passive: CalendarTables{Name: "B", Days: []axdr.Value{axdr.Unsigned(2)}},
			Activation: someDateTime(),
		}},
		{21, "0101 120064 \n" + monitored + "\n 0101 0202" + script(1) + script(2), reading(c.ReadRegisterMonitor), RegisterMonitor{
			Thresholds: []axdr.Value{axdr.LongUnsigned(100)}, Monitored: energy(), Actions: [][2]Script{{someScript(1), someScript(2)}},
		}},
		{22, script(3) + "\n 1601 \n 0101 0202 0904 00000000 0905 FFFFFF01FF", reading(c.ReadSingleActionSchedule), SingleActionSchedule{
			Script: someScript(3), Type: 1, Times: []struct{ Time, Date string }{{"\x00\x00\x00\x00", "\xFF\xFF\xFF\x01\xFF"}},
		}},
		{23, "1605 \n 1101 \n 1102 \n 120080 \n 120100 \n 120019 \n 120078 \n 120010", reading(c.ReadHDLCSetup), HDLCSetup{5, 1, 2, 128, 256, 25, 120, 16}},
		{40, "0101" + column + "\n 0203 1601 0902 4142 1600 \n 0101 0202" + someTime + someTime + "\n 12000A \n 1103 \n 12003C", reading(c.ReadPushSetup), PushSetup{
			Columns: []Column{{energy(), 5}}, Service: 1, Destination: "AB", Windows: []struct{ Start, End DateTime }{{someDateTime(), someDateTime()}},
			Random: 10, Retries: 3, Delay: axdr.LongUnsigned(60),
		}},
		{41, "120FDB \n" + someCode + "\n 120240 \n 1101 \n 1200B4", reading(c.ReadTCPUDPSetup), TCPUDPSetup{4059, obis.Code{0, 0, 96, 10, 1, 255}, 576, 1, 180}},
		{45, "0903 415042 \n 1204D2 \n 0202 0205 1101 1102 1103 1104 1105 0205 1106 1107 1108 1109 110A", reading(c.ReadGPRSSetup), GPRSSetup{
			APN: "APB", PIN: 1234, Default: [5]uint8{1, 2, 3, 4, 5}, Requested: [5]uint8{6, 7, 8, 9, 10},
		}},
		{47, "0A03 415042 \n 1601 \n 1602 \n 1603 \n 0201 1105 \n 0101 1106 \n" + someTime, reading(c.ReadGSMDiagnostic), GSMDiagnostic{
			Operator: "APB", Status: 1, Attachment: 2, Packet: 3, Cell: axdr.Structure(axdr.Unsigned(5)), Adjacent: []axdr.Value{axdr.Unsigned(6)}, Captured: someDateTime(),
		}},
		{62, "0903 010002 \n 0101" + column + "\n 1109 \n 0903 020111", reading(c.ReadCompactData), CompactData{
			Buffer: "\x01\x00\x02", Columns: []Column{{energy(), 5}}, Template: 9, Description: "\x02\x01\x11",
		}},
		{62, "0903 010002 \n 0101" + later + "\n 1109 \n 0903 020111", reading(c.ReadCompactData), CompactData{
			Buffer: "\x01\x00\x02", Columns: []Column{{energy(), 5}}, Template: 9, Description: "\x02\x01\x11",
		}},
		{64, "1603 \n 1601 \n 0908 4D4D4D0000BC614E \n 0908 4D4D4D0000000001", reading(c.ReadSecuritySetup), SecuritySetup{
			3, 1, "MMM\x00\x00\xBCaN", "MMM\x00\x00\x00\x00\x01",
		}},
		{70, "0301 \n 1601 \n 1604", reading(c.ReadDisconnectControl), DisconnectControl{true, 1, 4}},
		{71, monitored + "\n 120001 \n 120002 \n 120003 \n 0600000004 \n 0600000005 \n 0203 120006" + someTime + "0600000007 \n" +
			"0102 120008 120009 \n 0301 \n 0202" + script(1) + script(2), reading(c.ReadLimiter), Limiter{
			Monitored: energy(), Active: axdr.LongUnsigned(1), Normal: axdr.LongUnsigned(2), Emergency: axdr.LongUnsigned(3), MinOver: 4, MinUnder: 5,
			Profile: EmergencyProfile{6, someDateTime(), 7}, Groups: []uint16{8, 9}, InEmergency: true, Over: someScript(1), Under: someScript(2),
		}},
	} {
		code := obis.Code{0, 0, 99, byte(i), 0, 255}
		if _, err := object.read(t.Context(), code); !errors.Is(err, ObjectUndefined) {
			t.Errorf("%s that is not there: %v", ClassName(object.class), err)
		}
		m.object(object.class, code, strings.Split(object.attributes, "\n")...)
		got, err := object.read(t.Context(), code)
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", object.want) {
			t.Errorf("%s: %+v, %v; want %+v", ClassName(object.class), got, err, object.want)
		}
		// An attribute of another type than it has by the standard, or none.
		for id := range strings.Count(object.attributes, "\n") + 1 {
			a := Attribute{object.class, code, int8(id + 2)}
			was := m.values[a]
			m.values[a] = axdr.Float32(1)
			if _, err := object.read(t.Context(), code); err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("%v of a float: %v", a, err)
			}
			m.values[a] = axdr.Structure(axdr.Float32(1))
			if _, err := object.read(t.Context(), code); err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("%v of a structure: %v", a, err)
			}
			delete(m.values, a)
			if _, err := object.read(t.Context(), code); err != nil && !errors.Is(err, ObjectUndefined) {
				t.Errorf("%v that is not there: %v", a, err)
			}
			m.values[a] = was
		}
	}
	if _, err := c.ReadRegister(t.Context(), 1, obis.Code{}); !errors.Is(err, ObjectClassInconsistent) {
		t.Errorf("a register of class 1: %v", err)
	}
	d := CompactData{Buffer: "\x01\x02", Description: "\x02\x01\x11"}
	if v, err := d.Values(); err != nil || len(v.Items) != 2 || !v.Items[1].Equal(axdr.Structure(axdr.Unsigned(2))) {
		t.Errorf("compact data: %+v, %v", v, err)
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	c, m := shelved(t)
	ctx, code := t.Context(), obis.Code{0, 0, 96, 10, 1, 255}
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return c.SetClock(ctx, code, someDateTime()) }, "set 0-0:96.10.1*255/8:2 00" + someTime},
		{func() error { return c.ShiftClock(ctx, code, -5) }, "run 0-0:96.10.1*255/8:6 0110FFFB"},
		{func() error { return c.Disconnect(ctx, code) }, "run 0-0:96.10.1*255/70:1 010F00"},
		{func() error { return c.Reconnect(ctx, code) }, "run 0-0:96.10.1*255/70:2 010F00"},
		{func() error { return c.ExecuteScript(ctx, someScript(7)) }, "run 0-0:96.10.1*255/9:1 01120007"},
		{func() error { return c.ActivateCalendar(ctx, code) }, "run 0-0:96.10.1*255/20:1 010F00"},
		{func() error { return c.Push(ctx, code) }, "run 0-0:96.10.1*255/40:1 010F00"},
		{func() error { return c.VerifyImage(ctx, code) }, "run 0-0:96.10.1*255/18:3 010F00"},
		{func() error { return c.ActivateImage(ctx, code) }, "run 0-0:96.10.1*255/18:4 010F00"},
		{func() error { return c.ActivateSecurity(ctx, code, 3) }, "run 0-0:96.10.1*255/64:1 011603"},
		{func() error { return c.TransferKeys(ctx, code, []WrappedKey{{0, []byte{1}}, {2, []byte{3}}}) }, "run 0-0:96.10.1*255/64:2 01 0102 0202 1600 090101 0202 1602 090103"},
		{func() error { return c.SetEmergencyProfile(ctx, code, EmergencyProfile{1, someDateTime(), 2}) }, "set 0-0:96.10.1*255/71:8 00 0203 120001" + someTime + "0600000002"},
	} {
		m.done = nil
		if err := step.do(); err != nil || len(m.done) != 1 || spaced(m.done...) != spaced(step.want) {
			t.Errorf("%v, %v; want %s", m.done, err, step.want)
		}
	}
}

func TestSendImage(t *testing.T) {
	t.Parallel()
	c, m := shelved(t)
	code := obis.Code{0, 0, 44, 0, 0, 255}
	m.object(18, code, "0600000004", "0403 00", "0600000000", "0301", "1601")
	if err := c.SendImage(t.Context(), code, "fw", []byte("ABCDEFGHI"), true); err != nil {
		t.Error(err)
	}
	want := []string{
		"run 0-0:44.0.0*255/18:1 01 0202 0902 6677 0600000009", "run 0-0:44.0.0*255/18:2 01 0202 0600000000 0904 41424344",
		"run 0-0:44.0.0*255/18:2 01 0202 0600000001 0904 45464748", "run 0-0:44.0.0*255/18:2 01 0202 0600000002 0901 49",
	}
	if spaced(m.done...) != spaced(want...) {
		t.Errorf("%v, want %v", m.done, want)
	}
	m.done = nil
	m.object(18, code, "0600000004", "0403 C0", "0600000002", "0301", "1601")
	if err := c.SendImage(t.Context(), code, "fw", []byte("ABCDEFGHI"), false); err != nil || spaced(m.done...) != spaced(want[3]) {
		t.Errorf("went on with %v, %v", m.done, err)
	}
	m.object(18, code, "0600000004", "0403 C0", "0600000002", "0300", "1601")
	if err := c.SendImage(t.Context(), code, "fw", []byte("ABCDEFGHI"), false); !errors.Is(err, ErrNotGranted) {
		t.Errorf("not enabled: %v", err)
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	c, m := shelved(t)
	m.object(17, obis.Code{0, 0, 41, 0, 0, 255}, "0102 0202 120001 0903 475247 0202 120010 0900")
	devices, err := c.ReadLogicalDevices(t.Context())
	if err != nil || fmt.Sprint(devices) != fmt.Sprint([]LogicalDevice{{1, "GRG"}, {16, ""}}) {
		t.Errorf("%v, %v", devices, err)
	}
	m.object(15, obis.Code{0, 0, 40, 0, 0, 255},
		"0102 0204 120003 1100 0906 0100010800FF 0202 0102 0203 0F01 1601 00 0203 0F02 1603 0101 0F01 0101 0202 0F01 1601"+
			"0204 120046 1100 0906 000060030AFF 0202 0100 0102 0202 0F01 0301 0202 0F02 0300")
	objects, err := c.ReadObjects(t.Context())
	if err != nil || len(objects) != 2 || objects[0].Code != energy().Code || objects[0].Class != 3 ||
		fmt.Sprint(objects[0].Attributes, objects[0].Methods, objects[1].Methods) != "map[1:1 2:3] map[1:1] map[1:1 2:0]" {
		t.Errorf("%+v, %v", objects, err)
	}
	for _, bad := range []axdr.Value{axdr.Null(), axdr.Unsigned(1), axdr.Array(axdr.Null()), axdr.Array(axdr.Structure())} {
		if objects, err := ParseObjects(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v: %v, %v", bad, objects, err)
		}
	}
	if r, err := c.ReadRatios(t.Context()); !errors.Is(err, ObjectUndefined) {
		t.Errorf("no ratios: %v, %v", r, err)
	}
	m.object(1, obis.Code{1, 0, 0, 4, 2, 255}, "1200C8")
	m.object(3, obis.Code{1, 0, 0, 4, 3, 255}, "0600002710", "0202 0FFE 16FF")
	if r, err := c.ReadRatios(t.Context()); err != nil || r != (Ratios{200, 100}) || r.Of(30) != 20000 || r.Of(33) != 200 || r.Of(35) != 100 || r.Of(44) != 1 {
		t.Errorf("ratios: %v, %v", r, err)
	}
	m.object(1, obis.Code{1, 0, 0, 4, 5, 255}, "1105")
	if r, err := c.ReadRatios(t.Context()); err != nil || r != (Ratios{40, 100}) {
		t.Errorf("ratios with a denominator: %v, %v", r, err)
	}
	m.object(1, obis.Code{1, 0, 0, 4, 6, 255}, "1100")
	if r, err := c.ReadRatios(t.Context()); !errors.Is(err, ErrMalformed) {
		t.Errorf("over nothing: %v, %v", r, err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a                        Attribute
		class, attribute, method string
	}{
		{Attribute{Class: 3, ID: 2}, "register", "value", "method 2"},
		{Attribute{Class: 3, ID: 1}, "register", "logical_name", "reset"},
		{Attribute{Class: 12, ID: 8}, "association SN", "attribute 8", "reply_to_HLS_authentication"},
		{Attribute{Class: 12, ID: 4}, "association SN", "security_setup_reference", "method 4"},
		{Attribute{Class: 15, ID: 11}, "association LN", "current_user", "method 11"},
		{Attribute{Class: 15, ID: 6}, "association LN", "authentication_mechanism_name", "remove_user"},
		{Attribute{Class: 40, ID: 8}, "push setup", "port_reference", "method 8"},
		{Attribute{Class: 40, ID: 2}, "push setup", "push_object_list", "reset"},
		{Attribute{Class: 70, ID: -1}, "disconnect control", "attribute -1", "method -1"},
		{Attribute{Class: 999, ID: 2}, "class 999", "attribute 2", "method 2"},
	} {
		if got := [3]string{ClassName(c.a.Class), AttributeName(c.a), MethodName(c.a)}; got != [3]string{c.class, c.attribute, c.method} {
			t.Errorf("%v: %v", c.a, got)
		}
	}
	seen := map[uint16]bool{}
	for _, c := range classes {
		if c.name == "" || seen[c.id] {
			t.Errorf("class %d twice, or without a name", c.id)
		}
		seen[c.id] = true
	}
}

// FuzzObjects parses lists of objects of both kinds of association: what is
// accepted has as many objects as elements.
func FuzzObjects(f *testing.F) {
	f.Add(unhex(f, "0101 0204 120003 1100 0906 0100010800FF 0202 0102 0203 0F01 1601 00 0203 0F02 1603 0101 0F01 0101 0202 0F01 1601"))
	f.Add(binary.BigEndian.AppendUint16(unhex(f, "0101 0204 102BC0 120003 1101 0906 010001080"+"0FF"), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, _, err := axdr.Parse(b)
		if err != nil {
			return
		}
		if objects, err := ParseObjects(v); err == nil && len(objects) != len(v.Items) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("%x: %v, %v", b, objects, err)
		}
		if objects, err := ParseShortNames(v); err == nil && len(objects) != len(v.Items) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("%x: %v, %v", b, objects, err)
		}
		if columns, err := ParseColumns(v); err == nil && len(columns) != len(v.Items) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("%x: %v, %v", b, columns, err)
		}
	})
}
