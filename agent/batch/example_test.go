package batch_test

import (
	"errors"
	"fmt"

	"gridgate/agent/batch"
)

// A catalogue and a batch, as they come on the topics up/catalog/<hash> and
// up/readings/<lane>: rows with their numbers.
func ExampleDecoders() {
	gateway := newGateway()
	payload := gateway.batch(1, 2301, 2307, 2298) // in tenths of a volt

	catalogue, err := batch.ParseCatalogue(gateway.published())
	if err != nil {
		fmt.Println(err)
		return
	}
	known := map[batch.Hash]*batch.Catalogue{catalogue.Hash(): catalogue}

	var decoders batch.Decoders // one for all gateways
	header, span, err := decoders.Parse(payload, func(h batch.Hash) *batch.Catalogue { return known[h] })
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s/%s, lane %s, epoch %016x\n", header.Site, header.Gateway, header.Lane, header.Epoch)
	row := 0
	for _, run := range span.Runs { // the n-th row has the n-th number of the runs
		for number := run.First; number < run.First+run.Count; number++ {
			r := span.Rows[row]
			fmt.Printf("%d: %s %s %s = %s %s, %s\n", number, r.Meter, r.Channel.Short(), r.Stamp.UTC().Format("15:04:05"), r.Value, r.Unit, r.Quality)
			row++
		}
	}
	// Output:
	// north/gw-7, lane instant, epoch 00c0ffee00c0ffee
	// 1: house-1 1-0:32.7.0 08:00:00 = 230.1 V, good
	// 2: house-1 1-0:32.7.0 08:00:01 = 230.7 V, good
	// 3: house-1 1-0:32.7.0 08:00:02 = 229.8 V, good
}

// A subscriber may see a batch before its catalogue. It keeps the payload and
// parses it again when the catalogue is there; the gateway publishes it again
// when it is asked on down/catalog.
func ExampleUnknownCatalogueError() {
	gateway := newGateway()
	payload := gateway.batch(1, 2301)

	known := map[batch.Hash]*batch.Catalogue{}
	find := func(h batch.Hash) *batch.Catalogue { return known[h] }
	waiting := map[batch.Hash][][]byte{}

	var decoders batch.Decoders
	header, _, err := decoders.Parse(payload, find)
	var unknown *batch.UnknownCatalogueError
	if errors.As(err, &unknown) {
		waiting[unknown.Hash] = append(waiting[unknown.Hash], payload)
		fmt.Printf("publish nothing to gridgate/1/%s/%s/down/catalog\n", header.Site, header.Gateway)
	}

	// The catalogue comes. Keep it for good: an old batch needs an old one.
	catalogue, err := batch.ParseCatalogue(gateway.published())
	if err != nil {
		fmt.Println(err)
		return
	}
	known[catalogue.Hash()] = catalogue
	for _, payload := range waiting[catalogue.Hash()] {
		_, span, err := decoders.Parse(payload, find)
		fmt.Println(len(span.Rows), "row", err)
	}
	// Output:
	// publish nothing to gridgate/1/north/gw-7/down/catalog
	// 1 row <nil>
}
