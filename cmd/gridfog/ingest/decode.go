package ingest

import (
	"errors"
	"fmt"

	"gridgate/agent/batch"
	"gridgate/internal/mqtt"
)

// Why a message is refused: the words of dead_letters.reason and holes.reason.
const (
	reasonTopic     = "topic"      // its topic is of ours, and malformed
	reasonTooLong   = "too-long"   // more bytes than a batch may have
	reasonGarbled   = "garbled"    // no batch or no catalogue at all
	reasonFormat    = "format"     // of a format that this program does not read
	reasonName      = "other-name" // it says another site, gateway or lane than its topic
	reasonHash      = "hash"       // a catalogue under another's hash
	reasonCatalogue = "catalogue"  // the catalogue that it names never came
	reasonNumber    = "number"     // sequence numbers that cannot be
	reasonTime      = "time"       // rows of a time that cannot be
	reasonDatabase  = "database"   // the database refuses its values

	// Of holes only.
	reasonNeverCame = "never-came"        // asked for in vain
	reasonEpochOver = "epoch-over"        // the gateway's store began anew since
	reasonEarlier   = "confirmed-earlier" // confirmed to the gateway before this database knew it
	reasonManyGaps  = "too-many-gaps"
)

// maxBatch is the longest batch or catalogue that is looked at, in bytes.
const maxBatch = 512 << 10

// refusal says why a message is not taken.
type refusal struct{ reason, detail string }

func (r *refusal) Error() string { return r.reason + ": " + r.detail }

func refused(reason, format string, args ...any) *refusal {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// decoder is the one place where batches are decoded. It is not safe for
// concurrent use.
type decoder struct{ d batch.Decoders }

// parse reads a batch that came on a topic. What it gives is valid until the
// next call. Its errors are a refusal, a batch.UnknownCatalogueError or a
// batch.UnknownBaseError; the span has its runs and holes also with the last,
// and with a refusal where it could be read so far.
func (d *decoder) parse(topic mqtt.Topic, payload []byte, find func(batch.Hash) *batch.Catalogue) (batch.Header, batch.Span, error) {
	if len(payload) > maxBatch {
		return batch.Header{}, batch.Span{}, refused(reasonTooLong, "%d bytes, more than %d", len(payload), maxBatch)
	}
	h, err := batch.ParseHeader(payload)
	if err != nil {
		return h, batch.Span{}, garbled(err)
	}
	if h.Site != string(topic.Site) || h.Gateway != string(topic.Gateway) || h.Lane != topic.Lane {
		return h, batch.Span{}, refused(reasonName, "it says site %s, gateway %s, lane %s on the topic of site %s, gateway %s, lane %s",
			h.Site, h.Gateway, h.Lane, topic.Site, topic.Gateway, topic.Lane)
	}
	h, span, err := d.d.Parse(payload, find)
	var unknown *batch.UnknownCatalogueError
	var base *batch.UnknownBaseError
	switch {
	case errors.As(err, &unknown):
		return h, batch.Span{}, err
	case err != nil && !errors.As(err, &base):
		return h, span, garbled(err)
	case span.Last > maxNumber:
		return h, batch.Span{}, refused(reasonNumber, "numbers up to %d", span.Last)
	}
	return h, span, err
}

func garbled(err error) *refusal {
	var format *batch.FormatError
	if errors.As(err, &format) {
		return refused(reasonFormat, "%v", err)
	}
	return refused(reasonGarbled, "%v", err)
}

// parseCatalogue reads what came on a catalogue's topic.
func parseCatalogue(topic mqtt.Topic, payload []byte) (*batch.Catalogue, error) {
	if len(payload) > maxBatch {
		return nil, refused(reasonTooLong, "%d bytes, more than %d", len(payload), maxBatch)
	}
	c, err := batch.ParseCatalogue(payload)
	if err != nil {
		return nil, garbled(err)
	}
	if c.Hash() != batch.Hash(topic.Hash) {
		return nil, refused(reasonHash, "the catalogue is %s", c.Hash())
	}
	return c, nil
}
