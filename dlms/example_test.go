package dlms_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/obis"
)

// desk is a Transport to a meter in memory; a real one is that of dlms/wrapper
// or dlms/hdlc over a connection.
type desk struct {
	session *dlmstest.Session
	client  uint16
	answers [][]byte
}

func (d *desk) Send(_ context.Context, apdu []byte) error {
	d.answers = append(d.answers, d.session.Answer(d.client, apdu)...)
	return nil
}

func (d *desk) Receive(_ context.Context, b []byte) ([]byte, error) {
	if len(d.answers) == 0 {
		return nil, errors.New("nothing comes")
	}
	b = append(b, d.answers[0]...)
	d.answers = d.answers[1:]
	return b, nil
}

func noon() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.FixedZone("", 3600)) }

// onDesk gives a Transport to a meter with an energy register, a breaker and a
// load profile of 200 rows up to noon.
func onDesk(o dlmstest.Options, client uint16) *desk {
	energy, clock := obis.Code{1, 0, 1, 8, 0, 255}, obis.Code{0, 0, 1, 0, 0, 255}
	o.Objects = []dlmstest.Object{
		dlmstest.Clock(clock, noon),
		dlmstest.Register(energy, -1, 30, dlmstest.Fixed(axdr.DoubleLongUnsigned(12345))),
		dlmstest.Disconnector(obis.Code{0, 0, 96, 3, 10, 255}, nil),
		dlmstest.Cells(1, obis.Code{0, 0, 96, 1, 0, 255}, map[int8]axdr.Value{2: axdr.OctetString("GRG1")}, 2),
		dlmstest.Profile(obis.Code{1, 0, 99, 1, 0, 255}, []dlmstest.Column{{Class: 8, Code: clock, ID: 2}, {Class: 3, Code: energy, ID: 2}}, 900,
			func(s *dlmstest.Selection) []axdr.Value {
				var rows []axdr.Value
				for i := range 200 {
					at := noon().Add(time.Duration(i-199) * 15 * time.Minute)
					if s == nil || !at.Before(s.From) && !at.After(s.To) {
						rows = append(rows, axdr.Structure(axdr.OctetString(dlmstest.DateTime(at)), axdr.DoubleLongUnsigned(uint32(12146+i))))
					}
				}
				return rows
			}),
	}
	return &desk{session: dlmstest.NewMeter(o).NewSession(), client: client}
}

func Example() {
	ctx := context.Background()
	client := dlms.NewClient(onDesk(dlmstest.Options{}, 16), dlms.Options{})
	if _, err := client.Associate(ctx); err != nil {
		fmt.Println(err)
		return
	}
	energy := obis.Code{1, 0, 1, 8, 0, 255}
	r, err := client.ReadRegister(ctx, dlms.ClassRegister, energy)
	if err != nil {
		fmt.Println(err)
		return
	}
	n, _ := r.Value.Uint64()
	fmt.Println(energy, r.Scale.Apply(float64(n)), "of unit", r.Scale.Unit)
	fmt.Println(client.Release(ctx))
	// Output:
	// 1-0:1.8.0*255 1234.5 of unit 30
	// <nil>
}

func ExampleClient_Profile() {
	ctx := context.Background()
	client := dlms.NewClient(onDesk(dlmstest.Options{}, 16), dlms.Options{})
	if _, err := client.Associate(ctx); err != nil {
		fmt.Println(err)
		return
	}
	layout, err := client.ReadLayout(ctx, obis.Code{1, 0, 99, 1, 0, 255}) // keep it for the next time
	if err != nil {
		fmt.Println(err)
		return
	}
	rows, err := client.Profile(ctx, layout, dlms.Rows{Since: noon().Add(-30 * time.Minute), Until: noon()})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, row := range rows {
		n, _ := row.Values[1].Uint64()
		fmt.Println(row.Time.Format(time.RFC3339), layout.Columns[1].Scale.Apply(float64(n)))
	}
	// Output:
	// 2026-11-22T10:30:00Z 1234.3
	// 2026-11-22T10:45:00Z 1234.4
	// 2026-11-22T11:00:00Z 1234.5
}

func ExampleParseNotification() {
	// What a meter pushed, in two general blocks; read them off a listener.
	var blocks dlms.Assembler
	for _, apdu := range [][]byte{
		[]byte("\xE0\x01\x00\x01\x00\x00\x08\x0F\x00\x00\x00\x01\x00\x02\x02"),
		[]byte("\xE0\x81\x00\x02\x00\x00\x0D\x09\x06\x01\x00\x01\x08\x00\xFF\x06\x00\x00\x30\x39"),
	} {
		whole, _, err := blocks.Add(apdu)
		if err != nil {
			fmt.Println(err)
			return
		}
		if whole == nil {
			continue
		}
		n, err := dlms.ParseNotification(whole)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%v %d: %x is %d\n", n.Kind, n.Invoke, n.Value.Items[0].Str, n.Value.Items[1].Num)
	}
	// Output:
	// data-notification 1: 0100010800ff is 12345
}

// stream is a connection, as to a serial server, whose deadlines are counted
// from now, as HDLC wants them.
type stream struct{ net.Conn }

func (s stream) SetTimeout(d time.Duration) error { return s.SetDeadline(time.Now().Add(d)) }

// Listening on a serial line: the meter pushes in frames of its own (UI), and
// may do so while it is asked.
func ExampleParseNotification_serial() {
	ctx := context.Background()
	push, _ := dlms.Notification{Kind: dlms.DataNotificationKind, Invoke: 7, Value: axdr.DoubleLongUnsigned(4711)}.AppendBinary(nil)
	line, end := net.Pipe()
	defer line.Close()
	meter := onDesk(dlmstest.Options{}, 16).session
	station := dlmstest.Station{Push: push, Answer: func(client byte, apdu []byte) []byte {
		return meter.Answer(uint16(client), apdu)[0]
	}}
	go func() { _ = station.Serve(end) }() // until the line is closed

	link := hdlc.NewLink(stream{line}, hdlc.Config{
		Client: hdlc.ClientAddress(16), Server: hdlc.Address{Upper: 1, Size: 1},
		Notify: func(apdu []byte) {
			n, err := dlms.ParseNotification(apdu)
			fmt.Println(n.Kind, n.Invoke, n.Value.Num, err)
		},
	})
	if err := link.Connect(ctx); err != nil {
		fmt.Println(err)
		return
	}
	client := dlms.NewClient(link, dlms.Options{})
	_, err := client.Associate(ctx)
	fmt.Println("associated", client.Associated(), err)
	fmt.Println(link.Disconnect(ctx)) // ends the association too
	// Output:
	// data-notification 7 4711 <nil>
	// associated true <nil>
	// <nil>
}
