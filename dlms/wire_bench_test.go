package dlms_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
)

// wire is the line between client and meter, in memory. It counts what is on
// it, both ways, flags and check sequences with it, and turns: a turn is what
// the client writes in a row and what the meter answers to that.
type wire struct {
	net.Conn
	octets, turns int
	asking        bool // the last that passed was the client's
}

func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	w.octets += n
	if !w.asking {
		w.asking = true
		w.turns++
	}
	return n, err
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.octets += n
	w.asking = w.asking && n == 0
	return n, err
}

// SetTimeout makes reads and writes give up d from now.
func (w *wire) SetTimeout(d time.Duration) error { return w.SetDeadline(time.Now().Add(d)) }

// economy is a conversation that has a model: ten registers of four octets, and
// rows of 28 octets of a load profile, whose columns and scalers are known.
type economy struct {
	name          string
	info, window  int    // of the link, as both sides propose
	pdu           uint16 // likewise
	rows          int
	ciphered      bool // HLS 5, and all authenticated and encrypted; else a password of 8 octets
	kept          bool // link and association are open before, and after
	oneByOne      bool // no lists
	nulls         bool // rows leave their time out, but for the first
	octets, turns int  // of the model

	measured, exchanged int // octets and turns that were counted
}

// economies are the rows of the model. In it SNRM, AARQ, DISC and their answers
// are 211 octets in 3 turns; with HLS 5 they are 437 in 4, and each of the APDUs
// after them is 19 to 21 longer. The association ends with DISC, without RLRQ.
func economies() []economy {
	return []economy{
		{name: "cached", info: 128, window: 1, pdu: 512, rows: 96, oneByOne: true, octets: 4160, turns: 40},
		{name: "list", info: 128, window: 1, pdu: 512, rows: 96, octets: 3856, turns: 31},
		{name: "window-7", info: 128, window: 7, pdu: 4096, rows: 96, octets: 3451, turns: 8},
		{name: "info-2030", info: 2030, window: 7, pdu: 4096, rows: 96, octets: 3213, turns: 6},
		{name: "kept-open", info: 2030, window: 7, pdu: 4096, rows: 96, kept: true, octets: 3002, turns: 3},
		{name: "null-times", info: 2030, window: 7, pdu: 4096, rows: 96, nulls: true, octets: 1958, turns: 5},
		{name: "four-rows", info: 128, window: 1, pdu: 512, rows: 4, kept: true, octets: 406, turns: 2},
		{name: "hls5-ciphered", info: 2030, window: 7, pdu: 4096, rows: 96, ciphered: true, octets: 3517, turns: 7},
	}
}

func (e economy) ratio() float64 { return float64(e.measured) / float64(e.octets) }

// TestWireEconomy holds each conversation to 5 % of its model's octets, and to
// its model's turns.
func TestWireEconomy(t *testing.T) {
	t.Parallel()
	for _, e := range economies() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			e.run(t)
			if r := e.ratio(); r < 0.95 || r > 1.05 || e.exchanged > e.turns {
				t.Errorf("%d octets in %d turns, want within 5 %% of %d in at most %d", e.measured, e.exchanged, e.octets, e.turns)
			}
		})
	}
}

// BenchmarkWire prints the octets and turns of each conversation beside those
// of its model. Both directions are counted: see wire.
func BenchmarkWire(b *testing.B) {
	for _, e := range economies() {
		b.Run(e.name, func(b *testing.B) {
			for b.Loop() {
				e.run(b)
			}
			b.ReportMetric(float64(e.measured), "octets")
			b.ReportMetric(float64(e.octets), "octets-model")
			b.ReportMetric(e.ratio(), "octets/octets-model")
			b.ReportMetric(float64(e.exchanged), "turns")
			b.ReportMetric(float64(e.turns), "turns-model")
		})
	}
}

const rowLen = 28

func wireStart() time.Time { return time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC) }

func wireCode(s string) obis.Code {
	c, err := obis.Parse(s)
	if err != nil {
		panic(err)
	}
	return c
}

func wireRegisters() []dlms.Attribute {
	list := make([]dlms.Attribute, 10)
	for i := range list {
		list[i] = dlms.Attribute{Class: 3, Code: obis.Code{1, 0, byte(i + 1), 8, 0, 255}, ID: 2}
	}
	return list
}

func wireRow(i int, nulls bool) axdr.Value {
	at := axdr.Null()
	if i == 0 || !nulls {
		at = axdr.OctetString(dlmstest.DateTime(wireStart().Add(time.Duration(i) * 15 * time.Minute)))
	}
	return axdr.Structure(at, axdr.Unsigned(0), axdr.DoubleLongUnsigned(uint32(1000+i)), axdr.DoubleLongUnsigned(uint32(i)))
}

func wireColumns() []dlmstest.Column {
	return []dlmstest.Column{
		{Class: 8, Code: wireCode("0-0:1.0.0"), ID: 2},
		{Class: 1, Code: wireCode("0-0:96.10.1"), ID: 2},
		{Class: 3, Code: wireCode("1-0:1.8.0"), ID: 2},
		{Class: 3, Code: wireCode("1-0:2.8.0"), ID: 2},
	}
}

func wireLayout() *dlms.Layout {
	var columns []dlms.Column
	for _, c := range wireColumns() {
		columns = append(columns, dlms.Column{Attribute: dlms.Attribute{Class: c.Class, Code: c.Code, ID: c.ID}})
	}
	return dlms.NewLayout(dlms.Attribute{Class: 7, Code: wireCode("1-0:99.1.0"), ID: 2}, columns, 15*time.Minute)
}

func wireKey(first byte) security.Key {
	octets := make([]byte, 16)
	for i := range octets {
		octets[i] = first + byte(i)
	}
	k, err := security.NewKey(octets)
	if err != nil {
		panic(err)
	}
	return k
}

// meter gives the meter of the conversation.
func (e *economy) meter() *dlmstest.Meter {
	o := dlmstest.Options{
		MaxPDU: e.pdu,
		Clients: map[uint16]dlmstest.Login{
			1: {Mechanism: 1, Secret: "12345678"}, 2: {Mechanism: 5, Policy: security.AuthenticatedEncrypted},
		},
		Security: dlmstest.Security{
			Title: security.Title([]byte("GRGMETER")),
			Keys:  security.Keys{Encryption: wireKey(0), Authentication: wireKey(0xD0)},
		},
	}
	for i, a := range wireRegisters() {
		o.Objects = append(o.Objects, dlmstest.Register(a.Code, 0, 30, dlmstest.Fixed(axdr.DoubleLongUnsigned(uint32(100+i)))))
	}
	o.Objects = append(o.Objects, dlmstest.Profile(wireCode("1-0:99.1.0"), wireColumns(), 900, func(s *dlmstest.Selection) []axdr.Value {
		var rows []axdr.Value
		for i := range 96 {
			at := wireStart().Add(time.Duration(i) * 15 * time.Minute)
			if s == nil || !at.Before(s.From) && !at.After(s.To) {
				rows = append(rows, wireRow(i, e.nulls))
			}
		}
		return rows
	}))
	return dlmstest.NewMeter(o)
}

// client gives the client of the conversation.
func (e *economy) client(stream hdlc.Stream) (*dlms.Client, *hdlc.Link) {
	info, window := uint16(e.info), uint8(e.window)
	c := hdlc.Config{
		Client: hdlc.ClientAddress(1), Server: hdlc.Address{Upper: 1, Size: 1}, Timeout: time.Minute,
		Propose: hdlc.Parameters{MaxInfoTx: info, MaxInfoRx: info, WindowTx: window, WindowRx: window},
	}
	o := dlms.Options{Mechanism: dlms.LLS, Password: dlms.Secret("12345678"), MaxPDU: e.pdu}
	if e.ciphered {
		title, keys := security.Title([]byte("GRGATE01")), security.Keys{Encryption: wireKey(0), Authentication: wireKey(0xD0)}
		c.Client = hdlc.ClientAddress(2)
		o.Mechanism, o.Password = dlms.HLSGMAC, nil
		o.Security = dlms.Security{
			Policy: security.AuthenticatedEncrypted, Title: title, MeterTitle: security.Title([]byte("GRGMETER")), Keys: keys,
			Counter: security.NewCounter(new(security.Memory), title, keys.Encryption, 0),
		}
	}
	if e.oneByOne {
		o.Quirks.ListMax = 1
	}
	link := hdlc.NewLink(stream, c)
	return dlms.NewClient(link, o), link
}

// run has the conversation and counts it.
func (e *economy) run(tb testing.TB) {
	tb.Helper()
	here, there := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- e.meter().ServeHDLC(there, dlmstest.Station{MaxInfo: e.info, Window: e.window}) }()
	line := &wire{Conn: here}
	client, link := e.client(line)
	err := e.open(tb.Context(), client, link, line)
	if err == nil {
		err = e.read(tb, client)
	}
	if err == nil && !e.kept {
		err = link.Disconnect(tb.Context())
	}
	e.measured, e.exchanged = line.octets, line.turns
	_ = here.Close() // of a pipe: has no error
	if ended := <-served; err == nil && !errors.Is(ended, io.ErrClosedPipe) {
		err = ended
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func (e *economy) open(ctx context.Context, client *dlms.Client, link *hdlc.Link, line *wire) error {
	if err := link.Connect(ctx); err != nil {
		return err
	}
	if _, err := client.Associate(ctx); err != nil {
		return err
	}
	if !e.kept {
		return nil
	}
	_, err := client.ReadList(ctx, wireRegisters())
	line.octets, line.turns = 0, 0 // what was before is not counted
	return err
}

// read reads the registers, and the last rows of the profile.
func (e *economy) read(tb testing.TB, client *dlms.Client) error {
	tb.Helper()
	items, err := client.ReadList(tb.Context(), wireRegisters())
	if err != nil {
		return err
	}
	for i, item := range items {
		if v, ok := item.Value.Uint64(); item.Err != nil || !ok || v != uint64(100+i) {
			tb.Errorf("register %d: %v, %v", i, item.Value, item.Err)
		}
	}
	first := 96 - e.rows
	since := wireStart().Add(time.Duration(first) * 15 * time.Minute)
	rows, err := client.Profile(tb.Context(), wireLayout(), dlms.Rows{Since: since, Until: wireStart().Add(24 * time.Hour)})
	if err != nil || len(rows) != e.rows || len(items) != 10 {
		tb.Errorf("%d rows, want %d; %d registers", len(rows), e.rows, len(items))
		return err
	}
	for i, r := range rows {
		want := wireRow(first+i, false)
		at := since.Add(time.Duration(i) * 15 * time.Minute)
		if !r.Time.Equal(at) || !slices.EqualFunc(r.Values[1:], want.Items[1:], func(a, b axdr.Value) bool { return a.Tag == b.Tag && a.Num == b.Num }) {
			tb.Fatalf("row %d: %+v", i, r)
		}
	}
	if b, err := wireRow(first, false).AppendBinary(nil); err != nil || len(b) != rowLen {
		tb.Errorf("a row of %d octets, want %d, %v", len(b), rowLen, err)
	}
	return nil
}
