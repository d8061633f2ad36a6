package batch

// DefaultStreams is how many streams in delta mode Decoders remember.
const DefaultStreams = 4096

// Decoders reads the batches of all lanes of all gateways, in delta mode or not:
// it has the memory of a Decoder for each lane in delta mode, and one for all
// others. The same holds for it as for a Decoder. The zero value is ready.
type Decoders struct {
	// Limit is how many streams in delta mode are remembered, 0 is
	// DefaultStreams. Beyond it the one that was silent longest is forgotten, and
	// needs its next key frame. Each takes some 60 bytes for each of its series
	// and unconfirmed rows, 5 MB at most.
	Limit int

	d       Decoder
	others  memory // of what is not in delta mode
	streams map[streamName]*remembered
	clock   uint64
}

type streamName struct {
	site, gateway string
	lane          Lane
}

type remembered struct {
	memory
	used uint64
}

// Parse is like Decoder.Parse, for the batches of any stream.
func (d *Decoders) Parse(b []byte, find func(Hash) *Catalogue) (Header, Span, error) {
	e, err := d.d.open(b)
	if err != nil {
		return Header{}, Span{}, err
	}
	of := &d.others
	if e.delta.kept || e.delta.since > 0 {
		of = &d.stream(streamName{e.header.Site, e.header.Gateway, e.header.Lane}).memory
	}
	d.d.memory = *of
	h, s, err := d.d.read(&e, find)
	*of = d.d.memory
	return h, s, err
}

func (d *Decoders) stream(name streamName) *remembered {
	d.clock++
	r := d.streams[name]
	if r == nil {
		if d.streams == nil {
			d.streams = map[streamName]*remembered{}
		}
		d.makeRoom()
		r = &remembered{}
		d.streams[name] = r
	}
	r.used = d.clock
	return r
}

// makeRoom forgets the stream that was silent longest, when there are too many.
func (d *Decoders) makeRoom() {
	limit := d.Limit
	if limit <= 0 {
		limit = DefaultStreams
	}
	if len(d.streams) < limit {
		return
	}
	var oldest streamName
	used := d.clock
	for name, r := range d.streams {
		if r.used < used {
			oldest, used = name, r.used
		}
	}
	delete(d.streams, oldest)
}
