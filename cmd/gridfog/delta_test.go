package main

import (
	"testing"

	"gridgate/agent/batch"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// A watch that begins in the middle of a gateway in delta mode says so once, and
// with -resend asks for what it cannot follow.
func TestWatchAsksForWhatItCannotFollow(t *testing.T) {
	t.Parallel()
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	g := newGateway(t, broker.Address)
	asked := make(chan string, 100)
	topic := mqtt.ResendTopic("north", "gw-1", meter.Instant)
	if err := g.conn.Subscribe(t.Context(), topic, func(m mqtt.Message) { asked <- string(m.Payload) }); err != nil {
		t.Fatal(err)
	}
	e := batch.NewEncoder(9)
	write := func(n int) (payload []byte) {
		s := batch.Span{Lane: batch.Instant, Runs: []batch.Run{{First: g.next, Count: 2}}, Last: g.next + 1}
		for i := range 2 {
			s.Rows = append(s.Rows, batch.Row{
				Meter: "house-1", Channel: "1-0:32.7.0*255/3:2", Lane: batch.Instant, Unit: 35,
				Stamp: batch.Stamp{Time: int64(1000*n + i)}, Value: batch.Value{Kind: batch.Int, Scale: -1, Bits: uint64(2300 + n)},
			})
		}
		g.next += 2
		g.catalogue.Add(s.Rows)
		payload, err := e.Append(nil, batch.Header{Site: "north", Gateway: "gw-1", Epoch: 5, Lane: batch.Instant}, s, g.catalogue)
		if err != nil {
			t.Fatal(err)
		}
		e.Confirmed(5, s.Last)
		return payload
	}
	key := write(1) // before the watch began
	raw, _ := g.catalogue.AppendBinary(nil)
	g.publish(mqtt.CatalogueTopic("north", "gw-1", g.catalogue.Hash()), true, raw)
	readings := mqtt.ReadingsTopic("north", "gw-1", meter.Instant)

	w := start(t, "watch", "-broker", "tcp://"+broker.Address, "-json", "-resend")
	line(t, w.stderr, "connected")
	g.publish(readings, false, write(2))
	line(t, w.stderr, "lane instant, from number 3 on: batch: a delta against the rows 1 to 2")
	if got := <-asked; got != `{"epoch":"0000000000000005","first":3,"last":4}` {
		t.Errorf("it asked for %s", got)
	}
	g.publish(readings, false, key) // as an answer that was asked for earlier
	line(t, w.stdout, `"sequence":1`)
	line(t, w.stdout, `"sequence":2`)
	g.publish(readings, false, write(3))
	line(t, w.stderr, "from number 5 on")
	if got := <-asked; got != `{"epoch":"0000000000000005","first":5,"last":6}` {
		t.Errorf("it asked for %s", got)
	}
	e.Restart()
	g.publish(readings, false, write(4))
	line(t, w.stdout, `"sequence":7`)
	line(t, w.stdout, `"sequence":8`)
	w.stop()
	line(t, w.stderr, "delivered 4 rows")
	if code := <-w.code; code != 0 {
		t.Errorf("exit code %d", code)
	}
}
