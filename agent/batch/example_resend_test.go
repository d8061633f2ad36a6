package batch_test

import (
	"encoding/json"
	"errors"
	"fmt"

	"gridgate/agent/batch"
)

// resend asks a gateway for numbers, on down/resend/<lane> with QoS 1 and not
// retained.
type resend struct {
	Epoch string `json:"epoch"` // 16 hexadecimal digits
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

func ask(header batch.Header, first, last uint64) {
	b, err := json.Marshal(resend{fmt.Sprintf("%016x", header.Epoch), first, last})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("gridgate/1/%s/%s/down/resend/%s %s\n", header.Site, header.Gateway, header.Lane, b)
}

// A fog that was restarted, or that lost a batch, asks for what is missing, and
// for what came as a delta against rows that its decoder does not know. Both
// come in batches that stand alone, with their old numbers; what the gateway no
// longer has comes as a hole.
func Example_resend() {
	gateway := newDeltaGateway()
	gateway.batch(1, 2301, 2302)
	gateway.encoder.Confirmed(epoch, 2) // what comes next is a delta against these
	second := gateway.batch(3, 2303, 2304)

	var decoders batch.Decoders // of a fog that was restarted in between
	var s stream
	s.take(1, 2) // its database knows how far it was
	header, span, err := decoders.Parse(second, gateway.find)
	var base *batch.UnknownBaseError
	if errors.As(err, &base) { // header, runs and holes are valid all the same
		for _, run := range span.Runs {
			if last := run.First + run.Count - 1; !s.has(last) { // or else it is a late duplicate
				ask(header, run.First, last)
			}
		}
	}

	// The gateway sends them again.
	gateway.encoder.Restart()
	header, span, err = decoders.Parse(gateway.batch(3, 2303, 2304), gateway.find)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, run := range span.Runs {
		s.take(run.First, run.First+run.Count-1)
	}
	fmt.Println("stored through", s.through)

	// A number that is missing because a batch was lost.
	_, span, err = decoders.Parse(gateway.batch(6, 2306), gateway.find)
	if err != nil {
		fmt.Println(err)
		return
	}
	s.take(span.Runs[0].First, span.Last)
	if first, last, some := s.missing(); some {
		ask(header, first, last)
	}
	// Output:
	// gridgate/1/north/gw-7/down/resend/instant {"epoch":"00c0ffee00c0ffee","first":3,"last":4}
	// stored through 4
	// gridgate/1/north/gw-7/down/resend/instant {"epoch":"00c0ffee00c0ffee","first":5,"last":5}
}
