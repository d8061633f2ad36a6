package batch_test

import (
	"gridgate/agent/batch"
)

// gateway stands in the examples for what sends.
type gateway struct {
	catalogue *batch.Catalogue
	encoder   *batch.Encoder
}

func newGateway() *gateway {
	return &gateway{batch.NewCatalogue(), batch.NewEncoder(0)}
}

// newDeltaGateway sends differences, as with uplink.confirm: fog and delta mode.
func newDeltaGateway() *gateway {
	return &gateway{batch.NewCatalogue(), batch.NewEncoder(batch.DefaultKeyEvery)}
}

const epoch = 0x00c0ffee00c0ffee

// batch gives the payload of a batch of voltages that are numbered from first
// on, in tenths of a volt.
func (g *gateway) batch(first uint64, tenths ...uint64) []byte {
	span := batch.Span{Lane: batch.Instant, Runs: []batch.Run{{First: first, Count: uint64(len(tenths))}}, Last: first + uint64(len(tenths)) - 1}
	for i, v := range tenths {
		span.Rows = append(span.Rows, batch.Row{
			Meter: "house-1", Serial: "4711", Channel: "1-0:32.7.0*255/3:2", Lane: batch.Instant, Unit: 35,
			Stamp: batch.Stamp{Time: 1_767_254_400_000 + int64(first-1)*1000 + int64(i)*1000},
			Value: batch.Value{Kind: batch.Uint, Bits: v, Scale: -1},
		})
	}
	return g.encode(span)
}

// hole gives the payload of a batch that says only that numbers carry no rows.
func (g *gateway) hole(first, last uint64) []byte {
	hole := batch.Hole{First: first, Last: last, Reason: batch.Quota, Count: last - first + 1}
	return g.encode(batch.Span{Lane: batch.Instant, Holes: []batch.Hole{hole}, Last: last})
}

func (g *gateway) encode(span batch.Span) []byte {
	g.catalogue.Add(span.Rows)
	b, err := g.encoder.Append(nil, batch.Header{Site: "north", Gateway: "gw-7", Epoch: epoch, Lane: span.Lane}, span, g.catalogue)
	if err != nil {
		panic(err) // the examples' own mistake
	}
	return b
}

// published gives the payload of the catalogue.
func (g *gateway) published() []byte {
	b, err := g.catalogue.AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// find knows the catalogue already.
func (g *gateway) find(batch.Hash) *batch.Catalogue { return g.catalogue }
