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
	// Clock is the gateway's own; those of the meters stand with them.
	Clock   GatewayClock `json:"clock"`
	Intake  Intake       `json:"intake"`
	Lanes   []Lane       `json:"lanes"`
	Uplink  Uplink       `json:"uplink"`
	Meters  []Meter      `json:"meters"`
	Bridges []Bridge     `json:"bridges,omitempty"` // of power lines
	Dropped []Dropped    `json:"dropped,omitempty"` // the most rows first
	Orders  Orders       `json:"orders"`
	// Firmware is absent where none can be changed.
	Firmware *Firmware `json:"firmware,omitempty"`
	Notes    []string  `json:"notes,omitempty"` // what an operator should know and do

	Modem  *Modem        `json:"modem,omitempty"`
	Lines  []Line        `json:"lines"`
	Buffer *Buffer       `json:"buffer,omitempty"` // absent while it is not open
	Config RunningConfig `json:"config"`
	Health Health        `json:"health"`
}

// Orders is what the utility has ordered.
type Orders struct {
	Trust  uint64   `json:"trust"`            // version of the trust document; 0: no order is taken
	Layers []string `json:"layers,omitempty"` // of the configuration that were pushed: "TARGET version N"
	Trial  string   `json:"trial,omitempty"`  // what is on trial, and how far
	Last   string   `json:"last,omitempty"`   // what came of the last order
	// Commands are those that wait or are carried out: "ID ACTION: STATE".
	Commands []string `json:"commands,omitempty"`
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
	Day        int64  `json:"budget_day_bytes,omitempty"` // spent, where there is a budget
	Month      int64  `json:"budget_month_bytes,omitempty"`
	Withheld   bool   `json:"budget_spent,omitempty"` // interval and instant wait
	// Unconfirmed are lanes that the broker takes and the fog does not confirm.
	Unconfirmed []string `json:"unconfirmed,omitempty"`
	Error       string   `json:"error,omitempty"`
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
	// Answered counts the visits that were; Success is their share of the last
	// SuccessOf visits, at most 64.
	Answered  uint64   `json:"answered"`
	Success   *float64 `json:"success,omitempty"`
	SuccessOf int      `json:"success_of,omitempty"`
	Rows      uint64   `json:"rows"`
	// Of the visits, those that were not or not wholly answered, and those with
	// garbage among the answers.
	Silent  uint64 `json:"visits_unanswered,omitempty"`
	Garbled uint64 `json:"visits_garbled,omitempty"`
	Clock   *Clock `json:"clock,omitempty"` // as last compared
	// Gaps is how much of its profiles is still to be filled in, in seconds.
	Gaps int64 `json:"gaps_seconds,omitempty"`
}

// Clock is a meter's clock against the gateway's.
type Clock struct {
	Offset      float64   `json:"offset_seconds"`      // meter minus gateway
	Uncertainty float64   `json:"uncertainty_seconds"` // that of the gateway's clock included, where it is known
	Valid       bool      `json:"valid"`               // false when the meter says that it is not
	Measured    time.Time `json:"measured"`            // by the gateway's clock
	// Unsynchronised says that nobody vouched for the gateway's own clock then.
	Unsynchronised bool       `json:"gateway_unsynchronised,omitempty"`
	Policy         string     `json:"policy"` // observe, set or shift
	Pending        bool       `json:"setting_pending,omitempty"`
	LastSet        *time.Time `json:"last_set,omitempty"` // or about to be, before a start
	Why            string     `json:"not_set_because,omitempty"`
}
