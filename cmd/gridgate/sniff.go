package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"gridgate/agent/status"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/line"
	"gridgate/drivers/sniff"
	"gridgate/internal/cli"
)

// sniffFlags are the flags of sniff.
type sniffFlags struct {
	control, protocol, format string
	hex, json                 bool
	last                      time.Duration
}

func sniffVerb() cli.Verb {
	return cli.Verb{
		Name: "sniff", Summary: "decode what passes on a line, or what a file has of one", Args: "LINE-URL|FILE|-",
		Example: []string{
			"gridgate sniff serial:///dev/ttyS1                           # what the running agent and its meters say",
			"gridgate sniff 'serial:///dev/ttyUSB0?baud=2400&format=8E1'  # without an agent: listens, sends nothing",
			"gridgate sniff capture.pcapng",
			"gridgate sniff trace.hex -x",
			"gridgate sniff - -protocol hdlc < octets.bin",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var f sniffFlags
			fs.StringVar(&f.control, "control", defaultControl, "the control `SOCKET` of a running agent that has the line")
			socketOf(fs, &f.control)
			fs.StringVar(&f.protocol, "protocol", "", "look for these `PROTOCOLS` only: some of modbus,modbus-tcp,hdlc,wrapper,iec21 (default: whatever it is)")
			fs.StringVar(&f.format, "file", "", "what FILE is: pcap, hex or raw (default: as it looks)")
			fs.BoolVar(&f.hex, "x", false, "show the octets too; passwords that are sent in the clear are among them")
			fs.BoolVar(&f.json, "json", false, "print one JSON object a frame")
			fs.DurationVar(&f.last, "for", 0, "stop after this `DURATION` (default: with SIGINT)")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("sniff: want one URL or FILE; `gridgate sniff -h` shows examples")
				}
				return f.run(ctx, env, args[0])
			}
		},
	}
}

func (f sniffFlags) run(ctx context.Context, env cli.Env, source string) error {
	only, err := sniffProtocols(f.protocol)
	if err != nil {
		return err
	}
	switch {
	case !slices.Contains([]string{"", "pcap", "hex", "raw"}, f.format):
		return cli.Usagef("sniff: -file %q: want pcap, hex or raw", f.format)
	case f.last < 0:
		return cli.Usagef("sniff: -for %v: want a duration above zero", f.last)
	}
	p := newFramePrinter(env, f)
	if f.last > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, f.last)
		defer stop()
	}
	if strings.Contains(source, "://") {
		at, perr := address.ParseBare(source)
		if perr != nil {
			return wrongAddress("sniff", perr)
		}
		err = f.live(ctx, env, p, at, only)
	} else {
		err = f.file(ctx, env, p, source, only)
	}
	if ferr := p.flush(); err == nil {
		err = ferr
	}
	if err != nil {
		return fmt.Errorf("sniff: %w", advised(err))
	}
	return nil
}

func sniffProtocols(list string) (only []sniff.Protocol, err error) {
	if list == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		p := sniff.Protocol(name)
		if !slices.Contains(sniff.Protocols(), p) {
			return nil, cli.Usagef("sniff: -protocol %q: want some of modbus,modbus-tcp,hdlc,wrapper,iec21", name)
		}
		only = append(only, p)
	}
	return only, nil
}

// live listens to a line: through the agent that has it, or else by itself.
func (f sniffFlags) live(ctx context.Context, env cli.Env, p *framePrinter, at address.Bare, only []sniff.Protocol) error {
	listener := newLiveLine(p, sniff.Options{Only: only, Network: !at.Line.IsSerial()})
	err := status.Tap(ctx, f.control, at.Line.Line, func(passed status.Passed) error {
		if passed.Data == nil {
			fmt.Fprintf(env.Stderr, "gridgate: listening to what the agent and its meters say on %s; ctrl-C ends it\n", at.Line.Line)
			return nil
		}
		from := sniff.FromMeter
		if passed.Sent {
			from = sniff.FromMaster
		}
		if passed.Lost > 0 {
			fmt.Fprintf(env.Stderr, "gridgate: sniff: %s missed\n", count(passed.Lost, "piece"))
		}
		return listener.feed(sniff.Chunk{At: time.UnixMicro(passed.At), From: from, Data: passed.Data})
	})
	switch {
	case errors.Is(err, status.ErrNoAgent), errors.Is(err, status.ErrUnused):
		err = f.alone(ctx, env, listener, at)
	case errors.Is(err, io.EOF):
		err = errors.New("the agent stopped, or does not use the line any more")
	}
	if ferr := listener.flush(); err == nil {
		err = ferr
	}
	if ctx.Err() != nil {
		err = nil // it was to end
	}
	return err
}

// isTalk says whether the line is a connection between two, and no bus.
func isTalk(at address.Bare) bool {
	return at.Scheme == address.ModbusTCP || at.Scheme == address.DLMSWrapper || at.Scheme == address.DLMSUDP || at.Scheme.IsPLC()
}

// alone opens the line and listens. It sends nothing.
func (f sniffFlags) alone(ctx context.Context, env cli.Env, listener *liveLine, at address.Bare) (err error) {
	if isTalk(at) {
		return fmt.Errorf("%s: no agent has this connection, and nobody else's can be heard: use a capture (tcpdump -w FILE), `gridgate sniff FILE`", at.Line.Line)
	}
	l := drivers.OpenLine(at.Line, line.Options{Program: "gridgate sniff"})
	defer func() { err = errors.Join(err, l.Close()) }()
	set := line.Settings{Baud: at.Line.Baud, DataBits: at.Line.DataBits, Parity: at.Line.Parity, StopBits: at.Line.StopBits}
	if at.Scheme == address.IEC21 && at.Line.SignOn > 0 {
		set.Baud = at.Line.SignOn
	}
	return l.Do(ctx, set, func(ctx context.Context, port line.Port) error {
		what := at.Line.Line
		if at.Line.IsSerial() {
			what += " at " + set.String()
		}
		fmt.Fprintf(env.Stderr, "gridgate: listening on %s; ctrl-C ends it\n", what)
		var buf [4096]byte
		for {
			if err := port.SetDeadline(time.Now().Add(quietTime)); err != nil {
				return err
			}
			n, err := port.Read(buf[:])
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.Is(err, os.ErrDeadlineExceeded):
				err = listener.flush()
			case err == nil:
				err = listener.feed(sniff.Chunk{At: time.Now(), Data: buf[:n]})
			}
			if err != nil {
				return err
			}
		}
	})
}

// quietTime is after what silence a frame that has begun is given up.
const quietTime = 300 * time.Millisecond

// liveLine is a stream that is flushed when the line falls silent.
type liveLine struct {
	stream *sniff.Stream
	out    *framePrinter
}

func newLiveLine(p *framePrinter, o sniff.Options) *liveLine {
	return &liveLine{stream: sniff.NewStream(o), out: p}
}

func (l *liveLine) feed(c sniff.Chunk) error {
	for _, f := range l.stream.Feed(c) {
		l.out.print("", f)
	}
	return l.out.flush()
}

func (l *liveLine) flush() error {
	for _, f := range l.stream.Flush() {
		l.out.print("", f)
	}
	return l.out.flush()
}

// headLen is how much of a file tells what it is.
const headLen = 4096

// file decodes a file, or standard input.
func (f sniffFlags) file(ctx context.Context, env cli.Env, p *framePrinter, name string, only []sniff.Protocol) error {
	in := env.Stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	buffered := bufio.NewReaderSize(in, headLen)
	format := f.format
	if format == "" {
		head, _ := buffered.Peek(headLen) // what is shorter is shown as it is
		switch {
		case sniff.IsCapture(head):
			format = "pcap"
		case sniff.IsHex(head[:lastLine(head)]):
			format = "hex"
		default:
			format = "raw"
		}
	}
	streams := newStreams(p, only)
	var err error
	switch format {
	case "pcap":
		err = sniff.ReadCapture(buffered, func(packet sniff.Packet) error { return streams.packet(ctx, packet) })
	case "hex":
		var skipped int
		skipped, err = sniff.ReadHex(buffered, func(c sniff.Chunk) error {
			return streams.packet(ctx, sniff.Packet{Chunk: c, Network: true})
		})
		if skipped > 0 {
			fmt.Fprintf(env.Stderr, "gridgate: sniff: %s: %s without octets passed over\n", name, count(skipped, "line"))
		}
	default:
		err = streams.raw(ctx, buffered)
	}
	streams.flush()
	if n := len(streams.rest); n > 0 {
		fmt.Fprintf(env.Stderr, "gridgate: sniff: %s: %s of other protocols passed over\n", name, count(n, "connection"))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if p.decoded == 0 {
		return fmt.Errorf("%s: %w: read as %s, %s", name, sniff.ErrNothing, format, count(p.printed, "piece"))
	}
	return nil
}

// lastLine gives the length of b up to its last whole line.
func lastLine(b []byte) int {
	for i := len(b); i > 0; i-- {
		if b[i-1] == '\n' {
			return i
		}
	}
	return len(b)
}

// streams are the conversations of a file.
type streams struct {
	out  *framePrinter
	only []sniff.Protocol
	all  map[string]*sniff.Stream
	keys []string
	ours map[string]bool // connections of which something was decoded
	rest map[string]bool // those of which nothing was
}

const maxStreams = 4096

func newStreams(p *framePrinter, only []sniff.Protocol) *streams {
	return &streams{out: p, only: only, all: map[string]*sniff.Stream{}, ours: map[string]bool{}, rest: map[string]bool{}}
}

func (s *streams) packet(ctx context.Context, p sniff.Packet) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stream := s.all[p.Talk]
	if stream == nil {
		if len(s.all) >= maxStreams {
			s.flush()
		}
		stream = sniff.NewStream(sniff.Options{Only: s.only, Network: p.Network})
		s.all[p.Talk] = stream
		s.keys = append(s.keys, p.Talk)
	}
	if p.Lost {
		s.print(p.Talk, stream.Flush())
	}
	s.print(p.Talk, stream.Feed(p.Chunk))
	return s.out.flush()
}

// print prints frames; of a capture only those of connections that are ours: others
// are of anything.
func (s *streams) print(talk string, frames []sniff.Frame) {
	for _, f := range frames {
		switch {
		case f.Protocol != sniff.Unknown:
			s.ours[talk] = true
			delete(s.rest, talk)
		case talk != "" && !s.ours[talk]:
			s.rest[talk] = true
			continue
		}
		s.out.print(talk, f)
	}
}

// raw reads octets as they were on the line; of a pipe as they come.
func (s *streams) raw(ctx context.Context, in io.Reader) error {
	buf := make([]byte, headLen)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if perr := s.packet(ctx, sniff.Packet{Chunk: sniff.Chunk{Data: buf[:n]}, Network: true}); perr != nil {
				return perr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// flush ends all conversations.
func (s *streams) flush() {
	for _, k := range s.keys {
		s.print(k, s.all[k].Flush())
	}
	clear(s.all)
	s.keys = s.keys[:0]
}
