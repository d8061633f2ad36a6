package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"gridgate/cmd/gridfog/track"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

const (
	redrawEvery = 500 * time.Millisecond
	pageEvery   = 4 * time.Second // where the table is longer than the terminal
)

// cell is the place of a reading in the table: the latest of its channel.
type cell struct {
	site    string
	gateway string
	meter   meter.ID
	channel meter.Channel
}

// maxCells bounds what a hostile sender makes the table remember.
const maxCells = 100_000

// table is a live table of the latest readings, drawn over itself.
type table struct {
	out    io.Writer
	color  bool
	latest map[cell]track.Reading
	notice string
	drawn  bool
	page   int
	turned time.Time
}

func newTable(out io.Writer) *table { return &table{out: out, latest: map[cell]track.Reading{}} }

func (t *table) reading(r track.Reading) error {
	at := cell{r.Site, r.Gateway, r.Row.Meter, r.Row.Channel}
	if was, ok := t.latest[at]; !ok && len(t.latest) < maxCells || ok && !r.Row.Stamp.Before(was.Row.Stamp) {
		t.latest[at] = r
	}
	return nil
}

func (t *table) note(text string) { t.notice = text }

func (t *table) end() error {
	if !t.drawn {
		return nil
	}
	_, err := io.WriteString(t.out, "\n\x1b[?25h") // the cursor again
	return err
}

// redraw draws the table again and again until ctx ends, and once more then.
func (w *watch) redraw(ctx context.Context, t *table) {
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ended = true
		}
		w.mu.Lock()
		width, height := terminalSize(t.out)
		_, err := t.out.Write(t.draw(w.receiver, time.Now(), width, height))
		if err != nil && w.problem == nil {
			w.problem = fmt.Errorf("output: %w", err)
			w.stop()
		}
		w.mu.Unlock()
	}
}

// draw gives the screen: a heading, as many readings as fit, a status line and
// what was noted last. Height 0 is no bound.
func (t *table) draw(r *track.Receiver, now time.Time, width, height int) []byte {
	cells := make([]cell, 0, len(t.latest))
	for c := range t.latest {
		cells = append(cells, c)
	}
	slices.SortFunc(cells, func(a, b cell) int {
		return cmp.Or(cmp.Compare(t.rank(a), t.rank(b)), cmp.Compare(a.site, b.site), cmp.Compare(a.gateway, b.gateway), cmp.Compare(a.meter, b.meter), cmp.Compare(a.channel, b.channel))
	})
	pages := 1
	if room := height - 4; height > 0 && len(cells) > max(room, 1) {
		room = max(room, 1)
		pages = (len(cells) + room - 1) / room
		switch {
		case t.turned.IsZero():
			t.turned = now
		case now.Sub(t.turned) >= pageEvery:
			t.page, t.turned = t.page+1, now
		}
		from := t.page % pages * room
		cells = cells[from:min(from+room, len(cells))]
	}
	var b bytes.Buffer
	b.WriteString("\x1b[?25l\x1b[H") // no cursor, and home
	line := func(style, format string, args ...any) {
		text := clip(fmt.Sprintf(format, args...), width)
		if t.color && style != "" {
			text = style + text + "\x1b[0m"
		}
		b.WriteString(text + "\x1b[K\n")
	}
	line("\x1b[1m", "%-16s %-20s %18s %-5s %-22s %8s", "METER", "CHANNEL", "VALUE", "UNIT", "QUALITY", "AGE")
	for _, c := range cells {
		row := t.latest[c].Row
		style := ""
		switch {
		case row.Lane == meter.Alarm:
			style = "\x1b[31m"
		case row.Quality != 0:
			style = "\x1b[33m"
		}
		line(style, "%-16s %-20s %18s %-5s %-22s %8s", c.meter, c.channel.Short(), clip(row.Value.String(), 18), row.Unit, row.Quality, age(now.Sub(row.Stamp.UTC())))
	}
	n := r.Tracker.Totals()
	line("\x1b[7m", "gateways %d (%d online)  batches %d  rows %d  duplicates %d  missing %d  conflicts %d%s",
		r.Tracker.Gateways(), r.Online(), n.Batches, n.Delivered, n.Duplicates, n.Missing, n.Conflicts, t.more(r, pages))
	b.WriteString(clip(t.notice, width) + "\x1b[K\x1b[J")
	if !t.drawn {
		t.drawn = true
		return append([]byte("\x1b[2J"), b.Bytes()...)
	}
	return b.Bytes()
}

// rank puts alarms first.
func (t *table) rank(c cell) int {
	if t.latest[c].Row.Lane == meter.Alarm {
		return 0
	}
	return 1
}

// noColor says whether the user wants none (no-color.org).
func noColor(env cli.Env) bool {
	return env.Getenv != nil && (env.Getenv("NO_COLOR") != "" || env.Getenv("TERM") == "dumb")
}

// more is what stands in the status line only when there is something to say.
func (t *table) more(r *track.Receiver, pages int) string {
	text := ""
	if n := r.Waiting(); n > 0 {
		text += fmt.Sprintf("  waiting for a catalogue %d", n)
	}
	if pages > 1 {
		text += fmt.Sprintf("  page %d of %d", t.page%pages+1, pages)
	}
	return text
}

// clip cuts s to width characters and takes out what would move the cursor.
func clip(s string, width int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F || r >= 0x80 && r < 0xA0 {
			return '?'
		}
		return r
	}, s)
	if width > 0 && utf8.RuneCountInString(s) > width {
		return string([]rune(s)[:width])
	}
	return s
}

func age(d time.Duration) string {
	switch {
	case d < 0:
		return "ahead"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	default:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
}

func isTerminal(w io.Writer) bool {
	_, height := terminalSize(w)
	return height > 0
}

// terminalSize gives the size in characters, zeros for what is no terminal.
func terminalSize(w io.Writer) (width, height int) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	if size.Col == 0 || size.Row == 0 { // a terminal that was not told its size
		return 80, 24
	}
	return int(size.Col), int(size.Row)
}

func jsonString(s string) string { return string(meter.AppendJSONString(nil, s)) }
