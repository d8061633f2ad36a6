package dlmstest_test

import (
	"errors"
	"testing"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
)

func TestImageTransfer(t *testing.T) {
	t.Parallel()
	activated := ""
	m := dlmstest.NewMeter(dlmstest.Options{
		Clients: everyone(),
		Objects: []dlmstest.Object{dlmstest.ImageTransfer(code("0-0:44.0.0"), 4, func(name string, octets []byte) {
			activated = name + "=" + string(octets)
		})},
	})
	c := connectTo(m, 17, dlms.Options{Mechanism: dlms.LLS, Password: []byte(gurux)})
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := func(id int8) dlms.Attribute { return dlms.Attribute{Class: 18, Code: code("0-0:44.0.0"), ID: id} }
	run := func(id int8, argument axdr.Value, want error) {
		t.Helper()
		if _, err := c.Action(t.Context(), at(id), &argument); !errors.Is(err, want) {
			t.Errorf("method %d: %v, want %v", id, err, want)
		}
	}
	shows := func(id int8, want axdr.Value) {
		t.Helper()
		if v, err := c.Get(t.Context(), at(id)); err != nil || !v.Equal(want) {
			t.Errorf("attribute %d: %+v, %v, want %+v", id, v, err, want)
		}
	}
	block := func(n uint32, octets string) axdr.Value {
		return axdr.Structure(axdr.DoubleLongUnsigned(n), axdr.OctetString(octets))
	}
	shows(2, axdr.DoubleLongUnsigned(4))
	run(2, block(0, "abcd"), dlms.OtherReason) // before it began
	run(1, axdr.Structure(axdr.OctetString("fw"), axdr.DoubleLongUnsigned(10)), nil)
	run(2, block(0, "abcd"), nil)
	run(2, block(2, "ijk"), dlms.OtherReason) // too long
	run(2, block(2, "ij"), nil)
	run(2, block(3, "x"), dlms.OtherReason)
	shows(3, axdr.BitString("\xA0", 3))
	shows(4, axdr.DoubleLongUnsigned(1))
	run(3, axdr.Integer(0), dlms.OtherReason)
	run(4, axdr.Integer(0), dlms.OtherReason)
	run(2, block(1, "efgh"), nil)
	run(3, axdr.Integer(0), nil)
	shows(6, axdr.Enum(3))
	shows(7, axdr.Array(axdr.Structure(axdr.DoubleLongUnsigned(10), axdr.OctetString("fw"), axdr.OctetString(""))))
	run(4, axdr.Integer(0), nil)
	if activated != "fw=abcdefghij" {
		t.Errorf("activated %q", activated)
	}
	if err := c.Set(t.Context(), at(5), axdr.Boolean(false)); err != nil {
		t.Error(err)
	}
	run(1, axdr.Structure(axdr.OctetString("fw"), axdr.DoubleLongUnsigned(10)), dlms.ReadWriteDenied)
}
