package dlms

import "context"

// lists is a Transport to a meter with any attribute, whose value is the third
// group of its code. It counts the attributes of the requests, 0 for a get of
// one.
type lists struct {
	counts  []int
	most    int // lists over it are refused; 0 is no limit
	refusal []byte
	answer  []byte
}

func (m *lists) Send(_ context.Context, apdu []byte) error {
	if apdu[1] == formNormal {
		m.counts = append(m.counts, 0)
		m.answer = []byte{tagGetResponse, formNormal, apdu[2], 0, 0x11, apdu[7]}
		return nil
	}
	n := int(apdu[3])
	m.counts = append(m.counts, n)
	if m.most > 0 && n > m.most {
		m.answer = append([]byte(nil), m.refusal...)
		return nil
	}
	m.answer = []byte{tagGetResponse, formList, apdu[2], byte(n)}
	for i := range n {
		m.answer = append(m.answer, 0, 0x11, apdu[4+10*i+4])
	}
	return nil
}

func (m *lists) Receive(_ context.Context, b []byte) ([]byte, error) {
	return append(b, m.answer...), nil
}
