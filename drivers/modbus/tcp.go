package modbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// A Modbus TCP frame is (Modbus Messaging on TCP/IP V1.0b, 3.1.3)
//
//	transaction  2 bytes  the answer repeats it
//	protocol     2 bytes  0
//	length       2 bytes  of what follows
//	unit         1 byte
//	function     1 byte
//	data
const (
	mbapLen   = 7
	maxLength = 254 // unit, function and at most 252 bytes
)

// mbap sends requests in Modbus TCP frames. It is a transporter of the Modbus
// library for one unit. Answers to earlier requests are told by their
// transaction and skipped; after any error the connection is dropped.
type mbap struct {
	timeout time.Duration
	where   string

	// Of the exchange in progress.
	ctx  context.Context // the library's interface has none
	port line.Port
}

// Send takes an encoded read and gives the encoded answer.
func (t *mbap) Send(request []byte) ([]byte, error) {
	answer, err := t.send(request)
	if err != nil {
		t.port.Drop()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("%w within %v: is the meter on, is it %s?", meter.ErrNoAnswer, t.timeout, t.where)
		}
		return nil, err
	}
	return answer, nil
}

func (t *mbap) send(request []byte) ([]byte, error) {
	if err := t.port.SetDeadline(time.Now().Add(t.timeout)); err != nil {
		return nil, err
	}
	if _, err := t.port.Write(request); err != nil {
		return nil, fmt.Errorf("send: %w", lost(t.ctx, err))
	}
	for {
		answer, err := readMBAP(t.port)
		if errors.Is(err, meter.ErrGarbled) {
			return nil, err
		}
		if err != nil {
			return nil, fmt.Errorf("receive: %w", lost(t.ctx, err))
		}
		if binary.BigEndian.Uint16(answer) != binary.BigEndian.Uint16(request) {
			continue
		}
		if err := isAnswer(request, answer); err != nil {
			return nil, fmt.Errorf("%w: %w: is it %s?", meter.ErrGarbled, err, t.where)
		}
		return answer, nil
	}
}

func readMBAP(r io.Reader) ([]byte, error) {
	frame := make([]byte, mbapLen, mbapLen+maxLength-1)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(frame[4:]))
	if binary.BigEndian.Uint16(frame[2:]) != 0 || length < 3 || length > maxLength {
		return nil, fmt.Errorf("%w: % X is no Modbus TCP header: is the port another service's, or serial behind a terminal server (modbus+rtuovertcp)?", meter.ErrGarbled, frame)
	}
	frame = frame[:mbapLen+length-1]
	if _, err := io.ReadFull(r, frame[mbapLen:]); err != nil {
		return nil, err
	}
	return frame, nil
}

// isAnswer checks what the transaction does not say. Request and answer have
// their transaction in common.
func isAnswer(request, answer []byte) error {
	function, count := request[mbapLen], binary.BigEndian.Uint16(request[mbapLen+3:])
	got := answer[mbapLen:]
	switch {
	case answer[6] != request[6]:
		return fmt.Errorf("answer of unit %d", answer[6])
	case got[0] == function|exceptionBit && len(got) == 2:
		return nil
	case got[0] != function:
		return fmt.Errorf("answer to function %d", got[0])
	case function == writeMultiple:
		if !bytes.Equal(got, request[mbapLen:mbapLen+5]) {
			return fmt.Errorf("answer % X to a write of %d registers", got, count)
		}
		return nil
	case int(got[1]) != 2*int(count) || len(got) != 2+2*int(count):
		return fmt.Errorf("%d bytes for %d registers", len(got)-2, count)
	}
	return nil
}
