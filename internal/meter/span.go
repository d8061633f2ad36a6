package meter

// Append is what one commit of the store holds: rows, the cursors that these
// rows advance, and what had to be dropped before it could be stored. All of
// it is durable together or not at all.
type Append struct {
	Rows    []Row
	Cursors []Cursor
	Losses  []Loss
}

// Loss is rows of a lane that were read but could not be stored. The store
// gives it a place in the lane's sequence and declares it as a Hole.
type Loss struct {
	Lane   Lane
	Reason Reason
	Count  uint64 // rows, 0 when nobody knows how many
}

// Reason says why rows of a sequence are not there. The numbers are part of
// the stored and the wire format.
type Reason uint8

// The reasons.
const (
	Unexplained Reason = iota
	UncleanStop        // rows that waited for their commit when the gateway died
	MemoryFull         // the store could not be written and memory for waiting rows ran out
	Quota              // dropped to keep within the store's size
	Damaged            // the store's file was damaged there
)

func (r Reason) String() string {
	switch r {
	case UncleanStop:
		return "unclean-stop"
	case MemoryFull:
		return "memory-full"
	case Quota:
		return "quota"
	case Damaged:
		return "damaged"
	case Unexplained:
	}
	return "unexplained"
}

// Hole declares that the sequence numbers First to Last, both included, carry
// no rows and never will.
type Hole struct {
	First, Last uint64
	Reason      Reason
	Count       uint64 // rows lost, 0 when nobody knows how many
}

// Run is Count sequence numbers from First on.
type Run struct {
	First, Count uint64
}

// Span is a stretch of a lane's sequence: rows with their numbers, and the
// holes among and behind them. Every number after the previous span's Last up
// to this span's Last is in exactly one run or hole.
type Span struct {
	Lane  Lane
	Rows  []Row  // in order of their numbers
	Runs  []Run  // the numbers of Rows, rising
	Holes []Hole // rising
	Last  uint64 // the highest number that the span accounts for; 0 for an empty span
}
