package batch_test

import (
	"encoding/json"
	"fmt"

	"gridgate/agent/batch"
)

// acknowledgement is what a gateway with uplink.confirm: fog waits for, on
// down/ack/<lane>, retained and with QoS 1.
type acknowledgement struct {
	Epoch    string `json:"epoch"` // 16 hexadecimal digits
	Sequence uint64 `json:"sequence"`
}

// What is stored is confirmed lane by lane, after the database has committed:
// the highest number below which nothing is missing.
func Example_confirm() {
	gateway := newGateway()
	var decoders batch.Decoders
	var s stream
	for _, payload := range [][]byte{
		gateway.batch(1, 2301, 2302, 2303),
		gateway.batch(5, 2305), // 4 is missing: nothing above 3 may be confirmed
		gateway.hole(4, 4),
	} {
		header, span, err := decoders.Parse(payload, gateway.find)
		if err != nil {
			fmt.Println(err)
			return
		}
		before := s.through
		for _, run := range span.Runs {
			s.take(run.First, run.First+run.Count-1)
		}
		for _, hole := range span.Holes {
			s.take(hole.First, hole.Last)
		}
		// Here the database commits the rows and s in one transaction.
		if s.through > before {
			b, err := json.Marshal(acknowledgement{fmt.Sprintf("%016x", header.Epoch), s.through})
			if err != nil {
				fmt.Println(err)
				return
			}
			fmt.Printf("gridgate/1/%s/%s/down/ack/%s %s\n", header.Site, header.Gateway, header.Lane, b)
		}
	}
	// Output:
	// gridgate/1/north/gw-7/down/ack/instant {"epoch":"00c0ffee00c0ffee","sequence":3}
	// gridgate/1/north/gw-7/down/ack/instant {"epoch":"00c0ffee00c0ffee","sequence":5}
}
