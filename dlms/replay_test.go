package dlms_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/dlms/wrapper"
)

// link is the wrapper as a Transport, for streams that need no deadlines.
type link struct{ conn *wrapper.Conn }

func (l link) Send(_ context.Context, apdu []byte) error { return l.conn.Send(apdu) }

func (l link) Receive(_ context.Context, b []byte) ([]byte, error) { return l.conn.Receive(b) }

func over(stream io.ReadWriter, client uint16) link {
	return link{wrapper.NewConn(stream, client, 1, 0)}
}

// captured are the choices of the client in the captured conversations.
func captured(o dlms.Options) dlms.Options {
	o.Conformance, o.MaxPDU, o.InvokeID = 0x401E5D, 0xFFFF, 1
	return o
}

func trace(t *testing.T, name string) dlmstest.Trace {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr, err := dlmstest.ParseTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func attribute(t *testing.T, class uint16, code string, id int8) dlms.Attribute {
	t.Helper()
	c, err := obis.Parse(code)
	if err != nil {
		t.Fatal(err)
	}
	return dlms.Attribute{Class: class, Code: c, ID: id}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestTrace01 has the conversation of 01 again: clock, a register, and a day of
// a load profile in four blocks. Every octet sent is compared with the trace.
func TestTrace01(t *testing.T) {
	t.Parallel()
	replay := dlmstest.NewReplay(trace(t, "01-wrapper-ln-none-clock-range.txt"))
	c := dlms.NewClient(over(replay, 16), captured(dlms.Options{}))
	ctx, value := t.Context(), must[axdr.Value](t)

	granted := must[dlms.Association](t)(c.Associate(ctx))
	want := dlms.Association{Conformance: dlms.BlockTransferGet | dlms.MultipleReferences | dlms.Get | dlms.Set, MaxPDU: 512, VAA: 7}
	if granted != want {
		t.Errorf("granted %+v, want %+v", granted, want)
	}

	moment := func(v axdr.Value) time.Time {
		t.Helper()
		d := must[dlms.DateTime](t)(dlms.ParseDateTime(v.Str))
		return must[time.Time](t)(d.Time(nil))
	}
	clock := moment(value(c.Get(ctx, attribute(t, 8, "0-0:1.0.0", 2))))
	if want := time.Date(2026, 11, 22, 8, 40, 23, 0, time.UTC); !clock.Equal(want) {
		t.Errorf("clock %v, want %v", clock, want)
	}

	register := attribute(t, 3, "1-1:21.25.0", 3)
	scale := must[dlms.ScalerUnit](t)(dlms.ParseScalerUnit(value(c.Get(ctx, register))))
	register.ID = 2
	if v := value(c.Get(ctx, register)); scale != (dlms.ScalerUnit{Scaler: -2, Unit: 30}) || !v.Equal(axdr.LongUnsigned(25)) {
		t.Errorf("register: %+v in %+v, want 25 in hundredths of Wh", v, scale)
	}

	profile := attribute(t, 7, "1-0:99.1.0", 3)
	columns := must[[]dlms.Column](t)(dlms.ParseColumns(value(c.Get(ctx, profile))))
	if len(columns) != 2 || columns[0].Attribute != attribute(t, 8, "0-0:1.0.0", 2) || columns[1].Attribute != register || columns[1].Index != 0 {
		t.Errorf("columns %+v", columns)
	}

	profile.ID = 2
	day := func(of int) dlms.DateTime {
		d := dlms.DateTimeOf(time.Date(2026, 11, of, 8, 40, 23, 0, time.UTC))
		d.Weekday = 0xFF
		return d
	}
	rows := value(c.GetRange(ctx, profile, dlms.Range{From: day(21), To: day(22)}))
	if len(rows.Items) != 96 {
		t.Fatalf("%d rows, want 96", len(rows.Items))
	}
	first := time.Date(2026, 11, 21, 8, 45, 0, 0, time.UTC)
	for i, row := range rows.Items {
		at, want := moment(row.Items[0]), first.Add(time.Duration(i)*15*time.Minute)
		if !at.Equal(want) || !row.Items[1].Equal(axdr.LongUnsigned(uint16(1000+7*i))) {
			t.Errorf("row %d: %v at %v, want %d at %v", i, row.Items[1], at, 1000+7*i, want)
		}
	}

	if err := c.Release(ctx); err != nil {
		t.Error(err)
	}
	if err := replay.Close(); err != nil {
		t.Error(err)
	}
}

// TestTrace18 has the conversation of 18 again: a password, a service that the
// meter does not have, an object that it does not have.
func TestTrace18(t *testing.T) {
	t.Parallel()
	replay := dlmstest.NewReplay(trace(t, "18-wrapper-ln-lls-exception.txt"))
	c := dlms.NewClient(over(replay, 17), captured(dlms.Options{Mechanism: dlms.LLS, Password: []byte("Gurux")}))
	ctx := t.Context()
	granted := must[dlms.Association](t)(c.Associate(ctx))
	want := dlms.Association{MaxPDU: 1024, VAA: 7, Conformance: dlms.MultipleReferences | dlms.Get | dlms.Set | dlms.SelectiveAccess}
	if granted != want {
		t.Errorf("granted %+v, want %+v", granted, want)
	}

	zero := axdr.Integer(0)
	_, err := c.Action(ctx, attribute(t, 70, "0-0:96.3.10", 1), &zero)
	var exception *dlms.ExceptionError
	if !errors.As(err, &exception) || *exception != (dlms.ExceptionError{State: 2, Service: 2}) ||
		!strings.Contains(err.Error(), "action 0-0:96.3.10*255/70:1: exception: service unknown: service not supported") {
		t.Errorf("disconnect: %v", err)
	}
	_, err = c.Get(ctx, attribute(t, 3, "1-0:9.9.9", 2))
	if !errors.Is(err, dlms.ObjectUndefined) || err.Error() != "get 1-0:9.9.9*255/3:2: object undefined" {
		t.Errorf("undefined object: %v", err)
	}
	if err := c.Release(ctx); err != nil {
		t.Error(err)
	}
	if err := replay.Close(); err != nil {
		t.Error(err)
	}
}

// TestReplayNoticesEveryOctet is the control of the two tests above: one
// other octet anywhere in what the client sends, and the replay fails.
func TestReplayNoticesEveryOctet(t *testing.T) {
	t.Parallel()
	tr := trace(t, "18-wrapper-ln-lls-exception.txt")
	for i := range tr {
		if tr[i].FromMeter {
			continue
		}
		for at := range tr[i].Bytes {
			altered := append(dlmstest.Trace(nil), tr...)
			altered[i].Bytes = bytes.Clone(tr[i].Bytes)
			altered[i].Bytes[at] ^= 0x10
			replay := dlmstest.NewReplay(altered)
			c := dlms.NewClient(over(replay, 17), captured(dlms.Options{Mechanism: dlms.LLS, Password: []byte("Gurux")}))
			if _, err := c.Associate(t.Context()); err == nil {
				zero := axdr.Integer(0)
				_, _ = c.Action(t.Context(), attribute(t, 70, "0-0:96.3.10", 1), &zero)
				_, _ = c.Get(t.Context(), attribute(t, 3, "1-0:9.9.9", 2))
				_ = c.Release(t.Context())
			}
			if err := replay.Close(); !errors.Is(err, dlmstest.ErrScript) {
				t.Fatalf("line %d, octet %d altered, and the replay says %v", tr[i].Line, at, err)
			}
		}
	}
}
