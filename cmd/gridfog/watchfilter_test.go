package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/track"
	"gridgate/internal/mqtt"
	"gridgate/internal/proctest"
)

func TestRowFilter(t *testing.T) {
	t.Parallel()
	reading := func(id, serial, channel string, lane batch.Lane) *track.Reading {
		return &track.Reading{Stream: track.Stream{Lane: lane}, Row: batch.Row{Meter: batch.ID(id), Serial: serial, Channel: batch.Channel(channel), Lane: lane}}
	}
	all := []*track.Reading{
		reading("a", "S1", "1-0:1.8.0*255/3:2", batch.Billing),
		reading("a", "S1", "1-0:32.7.0*255/3:2", batch.Instant),
		reading("b", "", "event.tamper", batch.Alarm),
		reading("c", "a", "event.tariff", batch.Interval),
	}
	for _, c := range []struct {
		filter rowFilter
		want   string // a digit a reading that fits
	}{
		{rowFilter{}, "0123"},
		{rowFilter{meters: []string{"a"}}, "013"}, // c has that serial number
		{rowFilter{meters: []string{"S1", "b"}}, "012"},
		{rowFilter{laneNames: []string{"alarm", "billing"}}, "02"},
		{rowFilter{channelNames: []string{"1-0:1.8.0"}}, "0"},
		{rowFilter{channelNames: []string{"1-0:1.8.0*255/3:2"}}, "0"},
		{rowFilter{channelNames: []string{"event.*"}}, "23"},
		{rowFilter{channelNames: []string{"event.t*", "1-0:32.7.0"}}, "123"},
		{rowFilter{channelNames: []string{"event.*"}, laneNames: []string{"alarm"}}, "2"},
		{rowFilter{channelNames: []string{"*"}, meters: []string{"x"}}, ""},
	} {
		if err := c.filter.prepare("watch"); err != nil {
			t.Fatal(err)
		}
		got := ""
		for i, r := range all {
			if c.filter.fits(r) {
				got += fmt.Sprint(i)
			}
		}
		if got != c.want {
			t.Errorf("%+v fits %s, want %s", c.filter, got, c.want)
		}
	}
	for _, args := range []string{"-lane urgent", "-channel 1-0", "-meter="} {
		if out, errOut, code := gridfog(t, "", append([]string{"watch"}, strings.Fields(args)...)...); code != 2 || out != "" || !strings.Contains(errOut, strings.Fields(args)[0][:5]) {
			t.Errorf("watch %s: %d %s%s", args, code, out, errOut)
		}
	}
}

// Alarms stand first, and red where there may be colour; without it no sequence
// of a terminal styles anything.
func TestTableColours(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	r := track.NewReceiver(track.New(track.Options{}))
	for _, color := range []bool{true, false} {
		tab := newTable(io.Discard)
		tab.color = color
		for i, lane := range []batch.Lane{batch.Instant, batch.Alarm} {
			err := tab.reading(track.Reading{
				Stream: track.Stream{Site: "s", Gateway: "g", Lane: lane},
				Row:    batch.Row{Meter: batch.ID([]string{"a", "b"}[i]), Channel: "event.x", Lane: lane, Stamp: batch.Stamp{Time: now.UnixMilli()}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		screen := string(tab.draw(r, now, 100, 0))
		alarm, other := strings.Index(screen, "b       "), strings.Index(screen, "a       ")
		if alarm < 0 || other < alarm {
			t.Errorf("the alarm is not the first\n%s", screen)
		}
		if strings.Contains(screen, "\x1b[31mb ") != color || strings.Contains(screen, "m") && strings.Contains(screen, "\x1b[0m") != color {
			t.Errorf("colour %v: %q", color, screen)
		}
	}
}

// The built program on a pseudo-terminal: filters count for what is shown, not
// for what is counted; and NO_COLOR.
func TestWatchOnATerminal(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(proctest.Build(t, "gridfog"), "gridfog")
	address, _, _ := startBroker(t)
	payload, catalogue, hash := alarmText(t, "\x1b[1A")
	for _, c := range []struct {
		env   []string
		color bool
	}{{[]string{"NO_COLOR=", "TERM=xterm"}, true}, {[]string{"NO_COLOR=1", "TERM=xterm"}, false}, {[]string{"NO_COLOR=", "TERM=dumb"}, false}} {
		// script(1) of Debian's bsdutils gives it a terminal.
		p := proctest.Start(t, c.env, "script", "-qec", bin+" watch -broker mqtt://"+address+" -lane alarm", "/dev/null")
		p.Await("connected")
		g := newGateway(t, address)
		g.publish(mqtt.CatalogueTopic("north", "gw-1", hash), true, catalogue)
		g.send(2, false)
		g.publish("gridgate/1/north/gw-1/up/readings/alarm", false, payload)
		p.Await("rows 3")
		text := p.Output()
		if strings.Contains(text, "\x1b[31mm ") != c.color || !strings.Contains(text, "event.text") || strings.Contains(text, "house-1") || strings.Contains(text, "\x1b[1A") {
			t.Errorf("%v: %q", c.env, text)
		}
		p.Stop()
	}
}
