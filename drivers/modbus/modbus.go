// Package modbus reads meters by Modbus: over TCP, over RTU on a serial line,
// and by RTU frames within TCP (a serial line behind a terminal server).
//
// Frames and requests are made by a library; what sends them is ours, because
// RTU has no number that ties an answer to its request and a wrong tie is a
// wrong value without an error. See rtu for how that is kept from happening.
package modbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/goburrow/modbus"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// Transport says how requests travel.
type Transport uint8

// The transports.
const (
	TCP        Transport = iota // Modbus TCP
	RTU                         // RTU on a serial line
	RTUOverTCP                  // RTU frames in a TCP connection
)

const (
	defaultTimeout    = time.Second
	defaultTimeoutTCP = 3 * time.Second
	// busyPause is how long a meter that says it is busy is left alone.
	busyPause = 200 * time.Millisecond
)

// Config is what a Meter is made of.
type Config struct {
	ID        meter.ID
	Serial    string // the expected serial number; "" when none is configured
	Unit      uint8  // 1 to 247; 0 and 255 too over TCP
	Transport Transport
	Settings  line.Settings // of a serial line
	Model     *Model
	// Timeout is how long an answer may take, beyond its time on the wire;
	// 0 is 1 s on a serial line and 3 s over TCP.
	Timeout time.Duration
	Now     meter.Now
	// TimeZone is the zone of meters whose clock shows local time; nil is UTC.
	TimeZone *time.Location
}

// Meter is one Modbus unit; it implements meter.Visitor. It is not safe for
// concurrent use, but any number of meters share a line.
type Meter struct {
	cfg    Config
	line   *line.Line
	rtu    *rtu          // nil with TCP
	mbap   *mbap         // nil with RTU
	client modbus.Client // makes requests, takes answers apart
	learnt
	fits string // the serial number whose meter has shown the identity of the map
}

// New gives a meter on a line. It sends nothing. The model must not be nil.
func New(cfg Config, l *line.Line) *Meter {
	m := &Meter{cfg: cfg, line: l, learnt: learnt{cuts: map[cut]bool{}, refused: map[*Register]error{}, suspect: map[*Register]bool{}}}
	if cfg.Timeout <= 0 {
		m.cfg.Timeout = defaultTimeoutTCP
		if cfg.Transport == RTU {
			m.cfg.Timeout = defaultTimeout
		}
	}
	if cfg.Transport == TCP {
		m.mbap = &mbap{timeout: m.cfg.Timeout, where: fmt.Sprintf("unit %d", cfg.Unit)}
		m.client = modbus.NewClient2(tcpPackager(cfg.Unit), m.mbap)
		return m
	}
	m.rtu = &rtu{unit: cfg.Unit, timeout: m.cfg.Timeout, line: l, isTCP: cfg.Transport == RTUOverTCP}
	if m.rtu.isTCP {
		m.rtu.where = fmt.Sprintf("unit %d", cfg.Unit)
		m.rtu.silence = max(listenFor, cfg.Model.Turnaround)
	} else {
		m.rtu.where = fmt.Sprintf("unit %d at %v", cfg.Unit, cfg.Settings)
		m.rtu.silence = silenceOf(cfg.Settings, cfg.Model.Turnaround)
		m.rtu.char = cfg.Settings.CharTime()
	}
	m.client = modbus.NewClient2(rtuPackager(cfg.Unit), m.rtu)
	return m
}

// Close ends the use of the meter. The line is the caller's.
func (m *Meter) Close() error { return nil }

// encode makes an RTU read.
func encode(unit, function uint8, address, count uint16) []byte {
	// The library refuses only what is longer than a frame.
	frame, _ := rtuPackager(unit).Encode(&modbus.ProtocolDataUnit{
		FunctionCode: function,
		Data:         []byte{byte(address >> 8), byte(address), byte(count >> 8), byte(count)},
	})
	return frame
}

// refusal is an exception: the meter's word that it will not answer.
type refusal uint8

// The exceptions (Modbus Application Protocol V1.1b3, 7) that decide something.
const (
	illegalFunction refusal = modbus.ExceptionCodeIllegalFunction
	illegalAddress  refusal = modbus.ExceptionCodeIllegalDataAddress
	illegalValue    refusal = modbus.ExceptionCodeIllegalDataValue
	busy            refusal = modbus.ExceptionCodeServerDeviceBusy
	noTarget        refusal = modbus.ExceptionCodeGatewayTargetDeviceFailedToRespond
)

func (r refusal) Error() string {
	text := "unknown"
	switch uint8(r) {
	case modbus.ExceptionCodeIllegalFunction:
		text = "illegal function"
	case modbus.ExceptionCodeIllegalDataAddress:
		text = "illegal data address"
	case modbus.ExceptionCodeIllegalDataValue:
		text = "illegal data value"
	case modbus.ExceptionCodeServerDeviceFailure:
		text = "device failure"
	case modbus.ExceptionCodeAcknowledge:
		text = "acknowledge, come back later"
	case modbus.ExceptionCodeServerDeviceBusy:
		text = "device busy"
	case modbus.ExceptionCodeMemoryParityError:
		text = "memory parity error"
	case modbus.ExceptionCodeGatewayPathUnavailable:
		text = "the gateway has no path to the unit"
	case modbus.ExceptionCodeGatewayTargetDeviceFailedToRespond:
		text = "the gateway got no answer from the unit"
	}
	return fmt.Sprintf("the meter refuses: %s (exception %d)", text, uint8(r))
}

// missing says that the meter does not have what was asked for, or not in one
// piece.
func (r refusal) missing() bool {
	return r == illegalFunction || r == illegalAddress || r == illegalValue
}

// read sends one request and gives the registers' bytes.
func (m *Meter) read(ctx context.Context, b block) ([]byte, error) {
	answer, err := m.exchange(ctx, b)
	if errors.Is(err, busy) {
		timer := time.NewTimer(busyPause)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
		answer, err = m.exchange(ctx, b)
	}
	return answer, err
}

func (m *Meter) exchange(ctx context.Context, b block) (answer []byte, err error) {
	err = m.line.Do(ctx, m.cfg.Settings, func(ctx context.Context, port line.Port) error {
		if m.mbap != nil {
			m.mbap.ctx, m.mbap.port = ctx, port
		} else {
			m.rtu.ctx, m.rtu.port, m.rtu.others = ctx, port, b.others()
		}
		if b.function == modbus.FuncCodeReadInputRegisters {
			answer, err = m.client.ReadInputRegisters(b.address, b.count)
		} else {
			answer, err = m.client.ReadHoldingRegisters(b.address, b.count)
		}
		if err == nil && len(answer) != 2*int(b.count) {
			err = fmt.Errorf("%w: %d bytes for %d registers", meter.ErrGarbled, len(answer), b.count)
		}
		if err != nil {
			return fmt.Errorf("unit %d: read %d registers at 0x%04X by function %d: %w", m.cfg.Unit, b.count, b.address, b.function, translate(err))
		}
		return nil
	})
	return answer, err
}

// lostError says that the line broke off within an exchange: the peer hung up,
// the adapter was unplugged.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// lost marks what reading or writing a port gave, unless it is the time-out or
// the cancellation.
func lost(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return &lostError{err}
}

// translate makes the library's exceptions ours.
func translate(err error) error {
	var exception *modbus.ModbusError
	if !errors.As(err, &exception) {
		return err
	}
	r := refusal(exception.ExceptionCode)
	if r == noTarget {
		return fmt.Errorf("%w: %w", meter.ErrNoAnswer, r)
	}
	return r
}
