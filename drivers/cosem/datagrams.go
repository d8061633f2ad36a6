package cosem

import (
	"gridgate/dlms/wrapper"
	"gridgate/drivers/line"
)

// datagrams is the stream of what a UDP port sends: datagrams that hold a
// wrapper and just the octets that it announces (IEC 62056-47, 5.2). Others are
// passed over: nothing after them is out of step.
type datagrams struct {
	line.Port
	whole, rest []byte
}

func (d *datagrams) Read(b []byte) (int, error) {
	for len(d.rest) == 0 {
		if d.whole == nil {
			d.whole = make([]byte, wrapper.HeaderLen+maxAPDU+1) // one more shows what is too long
		}
		n, err := d.Port.Read(d.whole)
		if err != nil {
			return 0, err
		}
		h, err := wrapper.ParseHeader(d.whole[:n])
		if err == nil && wrapper.HeaderLen+int(h.Length) == n && h.Length <= maxAPDU {
			d.rest = d.whole[:n]
		}
	}
	n := copy(b, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}
