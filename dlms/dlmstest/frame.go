package dlmstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const headerLen = 8

// frame is an APDU with the wPorts it goes from and to (IEC 62056-47).
type frame struct {
	source, destination uint16
	apdu                []byte
}

func readFrame(r io.Reader) (frame, error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	if v := binary.BigEndian.Uint16(head[0:]); v != 1 {
		return frame{}, fmt.Errorf("wrapper of version %d", v)
	}
	f := frame{
		source:      binary.BigEndian.Uint16(head[2:]),
		destination: binary.BigEndian.Uint16(head[4:]),
		apdu:        make([]byte, binary.BigEndian.Uint16(head[6:])),
	}
	_, err := io.ReadFull(r, f.apdu)
	return f, err
}

// answer gives the frame that carries apdu back.
func (f frame) answer(apdu []byte) []byte {
	b := []byte{0, 1}
	b = binary.BigEndian.AppendUint16(b, f.destination)
	b = binary.BigEndian.AppendUint16(b, f.source)
	b = binary.BigEndian.AppendUint16(b, uint16(len(apdu)))
	return append(b, apdu...)
}

// serveFrames answers frame after frame until the client hangs up. An empty
// answer is silence.
func serveFrames(stream io.ReadWriter, answer func(frame) []byte) error {
	for {
		f, err := readFrame(stream)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if out := answer(f); len(out) > 0 {
			if _, err := stream.Write(out); err != nil {
				return err
			}
		}
	}
}
