package dlms_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/hdlc"
)

// TestGeneralBlocksOverHDLC has a day of a profile in general blocks of one
// frame each. A window of blocks is a turn as long as the window of the link
// lets it, and of no more octets than the model.
func TestGeneralBlocksOverHDLC(t *testing.T) {
	t.Parallel()
	const (
		pdu     = 125           // with the LLC header a frame of 128
		answer  = 4 + 2 + 96*28 // get-response, array, rows
		perOne  = pdu - 9       // octets in a block
		blocks  = (answer + perOne - 1) / perOne
		request = 12 + 3 + 64 + 7 // frame, LLC, get-request with a range, general block
		ack     = 12 + 3 + 7      // or 9 as RR
	)
	for name, c := range map[string]struct {
		link, window uint8
		ask          bool
		turns        int
	}{
		"asked in blocks":      {7, 7, true, (blocks + 6) / 7},
		"asked without":        {7, 7, false, 1 + (blocks-1+6)/7},
		"a window of the link": {3, 63, true, (blocks + 2) / 3},
		"a link of one":        {1, 63, true, blocks},
		"one by one":           {7, 1, true, blocks},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := economy{info: 128, window: int(c.link), pdu: pdu, rows: 96}
			here, there := net.Pipe()
			served := make(chan error, 1)
			go func() { served <- e.meter().ServeHDLC(there, dlmstest.Station{MaxInfo: e.info, Window: e.window}) }()
			line := &wire{Conn: here}
			link := hdlc.NewLink(line, hdlc.Config{
				Client: hdlc.ClientAddress(1), Server: hdlc.Address{Upper: 1, Size: 1}, Timeout: time.Minute,
				Propose: hdlc.Parameters{MaxInfoTx: 128, MaxInfoRx: 128, WindowTx: c.link, WindowRx: c.link},
			})
			client := dlms.NewClient(link, dlms.Options{
				Mechanism: dlms.LLS, Password: dlms.Secret("12345678"), MaxPDU: pdu, Window: c.window, GeneralBlocks: c.ask,
			})
			if err := e.open(t.Context(), client, link, line); err != nil {
				t.Fatal(err)
			}
			line.octets, line.turns = 0, 0
			rows, err := client.Profile(t.Context(), wireLayout(), dlms.Rows{Since: wireStart(), Until: wireStart().Add(24 * time.Hour)})
			if err != nil || len(rows) != 96 {
				t.Fatalf("%d rows, %v", len(rows), err)
			}
			most := request + answer + blocks*(9+3+12) + c.turns*ack
			if line.turns > c.turns || line.octets > most {
				t.Errorf("%d turns, want %d; %d octets, want at most %d", line.turns, c.turns, line.octets, most)
			}
			_ = here.Close() // of a pipe: has no error
			if ended := <-served; ended != nil && !errors.Is(ended, io.ErrClosedPipe) {
				t.Error(ended)
			}
		})
	}
}
