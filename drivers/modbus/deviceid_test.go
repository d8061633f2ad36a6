package modbus

import (
	"bytes"
	"testing"
)

// deviceIDAnswer is the example of Modbus Application Protocol V1.1b3, 6.21: vendor
// "Company identification", product "Product code XX", revision "V2.11".
func deviceIDAnswer() []byte {
	b := []byte{0x2B, 0x0E, 0x01, 0x01, 0x00, 0x00, 0x03}
	for i, s := range []string{"Company identification", "Product code XX", "V2.11"} {
		b = append(append(b, byte(i), byte(len(s))), s...)
	}
	return b
}

func TestDeviceID(t *testing.T) {
	t.Parallel()
	if want := []byte{0x2B, 0x0E, 0x01, 0x00}; !bytes.Equal(DeviceIDPDU(), want) {
		t.Errorf("% X, want % X", DeviceIDPDU(), want)
	}
	answer := deviceIDAnswer()
	want := DeviceID{"Company identification", "Product code XX", "V2.11"}
	if id, ok := ParseDeviceID(answer); !ok || id != want {
		t.Errorf("%+v, %v", id, ok)
	}
	for n := range answer {
		if id, ok := ParseDeviceID(answer[:n]); ok {
			t.Errorf("cut at %d: %+v", n, id)
		}
	}
	if _, ok := ParseDeviceID(append(answer, 0)); ok {
		t.Error("one octet more is taken")
	}
}

// What came after a request is told apart: the answer, another's, an echo, noise.
func TestWhatIsHeardIsToldApart(t *testing.T) {
	t.Parallel()
	request := encode(7, 3, 0, 1)
	answer, refusal := frame(7, 3, 2, 0x12, 0x34), frame(7, 0x83, 2)
	other, late := frame(9, 4, 2, 0, 1), frame(7, 4, 2, 0, 9)
	id := frame(append([]byte{7}, deviceIDAnswer()...)...)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, c := range map[string]struct {
		heard []byte
		want  Heard
	}{
		"nothing":         {nil, Heard{}},
		"answer":          {answer, Heard{PDU: answer[1:5]}},
		"refusal":         {refusal, Heard{PDU: refusal[1:3]}},
		"echo":            {request, Heard{Echo: true}},
		"echo, answer":    {join(request, answer), Heard{Echo: true, PDU: answer[1:5]}},
		"twice":           {join(answer, answer), Heard{PDU: answer[1:5], Again: true}},
		"another before":  {join(other, answer), Heard{PDU: answer[1:5], Others: []uint8{9}}},
		"late of our own": {late, Heard{Others: []uint8{7}}},
		"identification":  {id, Heard{Others: []uint8{7}}},
		"noise around":    {join([]byte{0xFF, 0}, answer, []byte{0x55}), Heard{PDU: answer[1:5], Strange: []byte{0xFF, 0, 0x55}}},
		"bad check":       {join(answer[:6], []byte{^answer[6]}), Heard{Strange: join(answer[:6], []byte{^answer[6]})}},
	} {
		var got Heard
		sortOut(c.heard, request, &got)
		if !bytes.Equal(got.PDU, c.want.PDU) || got.Echo != c.want.Echo || got.Again != c.want.Again || !bytes.Equal(got.Others, c.want.Others) || !bytes.Equal(got.Strange, c.want.Strange) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func FuzzHeard(f *testing.F) {
	f.Add(frame(7, 3, 2, 1, 2), false)
	f.Add(frame(append([]byte{7}, deviceIDAnswer()...)...), true)
	f.Fuzz(func(t *testing.T, data []byte, asked bool) {
		var request []byte
		if asked {
			request = encode(7, 3, 0, 1)
		}
		var h Heard
		sortOut(data, request, &h)
		if len(h.Strange) > len(data) || request == nil && (h.PDU != nil || h.Echo) {
			t.Errorf("% X: %+v", data, h)
		}
		_, _ = ParseDeviceID(data)
	})
}
