package dlmstest_test

import (
	"testing"

	"gridgate/dlms/dlmstest"
)

// TestPlainTraces has the meter answer clients that read without proof, by the
// wrapper and by HDLC. Its profile is another than that of the traces, so that
// kinds and results are compared, and blocks are not.
func TestPlainTraces(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"01-wrapper-ln-none-clock-range.txt", "02-hdlc-ln-none-clock-range.txt"} {
		m := captured(t, "", "07EA0B160708282800000000", "120062", dlmstest.Options{MaxPDU: 512, Clients: map[uint16]dlmstest.Login{16: {}}})
		s := m.NewSession()
		same := 0
		for i, pair := range exchanges(t, name) {
			const get, next, response = 0xC0, 2, 0xC4
			sent, want := pair[0], pair[1]
			if len(want) < 4 || sent[0] == get && sent[1] == next {
				continue
			}
			out := s.Answer(16, sent)
			if len(out) != 1 || out[0][0] != want[0] {
				t.Errorf("%s, exchange %d: %x was answered %x, want %x", name, i, sent, out, want)
				continue
			}
			if got := out[0]; got[0] == response && got[1] == 1 && want[1] == 1 && got[3] != want[3] {
				t.Errorf("%s, exchange %d: %x has the result %x, want %x", name, i, sent, got, want)
			}
			same++
		}
		if same < 6 {
			t.Errorf("%s: %d exchanges", name, same)
		}
	}
}
