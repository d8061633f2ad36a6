package cosem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/security"
	"gridgate/drivers/line"
)

const (
	hdlcFlag = 0x7E
	// frameSilence is how long a line may be silent within a frame, and how
	// long after it until what was no frame is told.
	frameSilence = 2 * time.Second
	// reopenPause is how long a line that was lost is left alone.
	reopenPause = 5 * time.Second
	// minNoise is how many octets that are no frame are worth telling, and
	// maxNoise how many are told though the line does not fall silent.
	minNoise = 4
	maxNoise = 4096
	// maxStations is how many stations of a line may have segments waiting; on a
	// connection it is maxBegun.
	maxStations = 16
)

// LineOptions is how to listen on a line.
type LineOptions struct {
	Settings line.Settings
	// Answer says that senders hear: blocks are acknowledged and what asks for
	// it is confirmed, in UI frames. Customer ports (HAN) cannot hear, and ask
	// all the same.
	Answer bool
}

// ServeLine takes the HDLC frames on l, until ctx ends: UI frames, and the I
// frames in which some meters push without a connection; from any station to
// any client. It keeps the line, which must not be of meters that are read. A
// line that cannot be opened is an error; one that is lost later is told to Bad
// and opened anew. listening is told when it is open first.
func (r *Receiver) ServeLine(ctx context.Context, l *line.Line, o LineOptions, listening func()) error {
	from := Sender{Line: l.String()}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for opened := false; ; {
		in := intake{Receiver: r, oneWay: !o.Answer}
		err := l.Do(ctx, o.Settings, func(ctx context.Context, port line.Port) error {
			if !opened {
				opened = true
				listening()
			}
			h := hdlcFrames{intake: &in, from: from}
			err := h.run(port)
			port.Drop()
			return err
		})
		if ctx.Err() != nil {
			return nil
		}
		if !opened || errors.Is(err, line.ErrClosed) {
			return err
		}
		in.end()
		if err == nil {
			err = fmt.Errorf("line %s: the other side hung up", l)
		}
		r.bad(from, fmt.Errorf("%w: it is opened anew", err))
		pause.Reset(reopenPause)
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
	}
}

// stream is a line or a connection.
type stream interface {
	io.ReadWriter
	SetDeadline(t time.Time) error
}

// hdlcFrames takes notifications out of HDLC frames.
type hdlcFrames struct {
	*intake
	from  Sender
	idle  time.Duration // how long there may be nothing; 0 is for ever
	heard func()        // is told that octets came; nil nobody

	in       hdlc.Splitter
	segments map[hdlc.Address][]byte
	octets   int // since the last silence that were in no frame
}

// run takes what comes until the stream ends.
func (h *hdlcFrames) run(s stream) error {
	b := make([]byte, 512)
	for {
		if err := s.SetDeadline(h.deadline()); err != nil {
			return err
		}
		n, err := s.Read(b)
		if n > 0 {
			if h.heard != nil {
				h.heard()
			}
			h.feed(s, b[:n])
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && h.isBusy():
			h.silence(s)
		case errors.Is(err, io.EOF):
			h.silence(s)
			return nil
		default:
			return err
		}
	}
}

func (h *hdlcFrames) isBusy() bool { return h.octets > 0 || h.in.Partial() }

func (h *hdlcFrames) deadline() time.Time {
	switch {
	case h.isBusy():
		return time.Now().Add(frameSilence)
	case h.idle > 0:
		return time.Now().Add(h.idle)
	}
	return time.Time{}
}

// feed takes octets.
func (h *hdlcFrames) feed(s stream, b []byte) {
	h.octets += len(b)
	h.in.Feed(b)
	h.next(s)
	if h.octets > maxNoise {
		h.tellNoise()
	}
}

// next takes the frames that are whole.
func (h *hdlcFrames) next(s stream) {
	for raw, ok := h.in.Next(); ok; raw, ok = h.in.Next() {
		h.octets = max(0, h.octets-len(raw))
		f, err := hdlc.ParseFrame(raw)
		if err != nil {
			continue // never: Next looked
		}
		h.frame(s, f)
	}
}

// silence gives up the frame that has begun: one may be within it.
func (h *hdlcFrames) silence(s stream) {
	for h.in.Partial() {
		h.in.Skip()
		h.next(s)
	}
	h.in.Reset()
	h.tellNoise()
}

func (h *hdlcFrames) tellNoise() {
	if h.octets >= minNoise {
		h.bad(h.from, fmt.Errorf("%d octets %w that are no frame: noise, or the wrong speed or parity (baud=2400&format=8E1?)", h.octets, ErrLost))
	}
	h.octets = 0
}

// frame takes a frame.
func (h *hdlcFrames) frame(s stream, f hdlc.Frame) {
	apdu := h.unwrap(f)
	if apdu == nil {
		return
	}
	from := h.from
	from.Station = f.Source
	for _, answer := range h.take(from, apdu) {
		if h.oneWay {
			continue
		}
		out := hdlc.Frame{Destination: f.Source, Source: f.Destination, Control: hdlc.UI, Info: append([]byte("\xE6\xE6\x00"), answer...)}
		b, err := out.AppendBinary(nil)
		if err == nil {
			_, err = s.Write(b)
		}
		if err != nil {
			h.bad(from, fmt.Errorf("answering: %w", err))
		}
	}
}

// unwrap gives the APDU of a frame; nil where it has none, or more segments
// follow. Some meters have the LLC header in the first frame only of blocks
// that they send. What is sent between a meter and who reads it is passed over.
func (h *hdlcFrames) unwrap(f hdlc.Frame) []byte {
	const ui, final = hdlc.UI &^ 0x10, hdlc.Control(0x10)
	isInformation := f.Control&1 == 0
	if f.Control&^final != ui && !isInformation || isInformation && f.Segmented {
		return nil
	}
	info := f.Info
	if begun, ok := h.segments[f.Source]; ok || f.Segmented {
		most := maxStations
		if h.most > 0 {
			most = h.most
		}
		if len(begun)+len(info) > maxPush || !ok && len(h.segments) >= most {
			clear(h.segments)
			h.bad(h.from, fmt.Errorf("a notification in segments is %w: over %d octets, or %d stations", ErrLost, maxPush, most))
			return nil
		}
		info = append(begun, info...)
		if delete(h.segments, f.Source); f.Segmented {
			if h.segments == nil {
				h.segments = map[hdlc.Address][]byte{}
			}
			h.segments[f.Source] = info
			return nil
		}
	}
	if len(info) > 3 && info[0] == 0xE6 && (info[1] == 0xE7 || info[1] == 0xE6) {
		info = info[3:]
	}
	if len(info) == 0 || isInformation && !isPush(info[0]) {
		return nil
	}
	return info
}

// isPush says whether an APDU may be what a meter sends unasked.
func isPush(tag byte) bool {
	switch tag {
	case byte(dlms.DataNotificationKind), byte(dlms.EventNotificationKind), byte(dlms.InformationReportKind):
		return true
	case tagGeneralBlock, security.TagGeneralGlobal, security.TagGeneralDedicated, security.TagGeneralCiphering:
		return true
	}
	return false
}
