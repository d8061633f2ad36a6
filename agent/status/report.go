package status

import "time"

// Report is how the agent does; its JSON is what `gridgate status -json`
// prints.
type Report struct {
	Version string    `json:"version"`
	Site    string    `json:"site"`
	Gateway string    `json:"gateway"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Epoch   string    `json:"epoch"` // of the buffer, 16 hexadecimal digits
	Intake  Intake    `json:"intake"`
	Lanes   []Lane    `json:"lanes"`
	Uplink  Uplink    `json:"uplink"`
	Meters  []Meter   `json:"meters"`
	Dropped []Dropped `json:"dropped,omitempty"` // the most rows first
	Notes   []string  `json:"notes,omitempty"`   // what an operator should know and do
}

// Intake is what was read and stored since the start.
type Intake struct {
	Read    uint64 `json:"rows_read"`
	Stored  uint64 `json:"rows_stored"`
	Waiting uint64 `json:"rows_waiting"`
	Dropped uint64 `json:"rows_dropped"`
	Commits uint64 `json:"commits"`
	Failed  uint64 `json:"commits_failed"`
	Error   string `json:"error,omitempty"`
}

// Lane is how far one lane of the buffer has come, as sequence numbers.
type Lane struct {
	Lane  string `json:"lane"`
	Last  uint64 `json:"last"`
	Acked uint64 `json:"acked"`
	// Given up before the fog had them, since the epoch began.
	Lost uint64 `json:"rows_lost"`
}

// Dropped is how many rows of a channel of a meter the buffer gave up, to keep
// within its size, before the fog had them.
type Dropped struct {
	Meter   string `json:"meter"`
	Channel string `json:"channel"`
	Rows    uint64 `json:"rows"`
}

// MaxDropped is how many channels a report lists, those with the most rows;
// `gridgate buffer stat` lists them all.
const MaxDropped = 64

// Uplink is how the way to the fog does.
type Uplink struct {
	Broker     string `json:"broker"`
	Connected  bool   `json:"connected"`
	Batches    uint64 `json:"batches"`
	Rows       uint64 `json:"rows_acked"`
	Bytes      uint64 `json:"bytes"`
	Reconnects uint64 `json:"reconnects"`
	Error      string `json:"error,omitempty"`
}

// Meter is how one meter does.
type Meter struct {
	Meter  string     `json:"meter"`
	Line   string     `json:"line"`
	Serial string     `json:"serial"`
	State  string     `json:"state"`
	Error  string     `json:"error,omitempty"`
	Good   *time.Time `json:"last_good,omitempty"`
	Visits uint64     `json:"visits"`
	Rows   uint64     `json:"rows"`
}
