package status

import "time"

// HealthState is how the gateway does, in a word.
type HealthState string

// The states of health.
const (
	Healthy  HealthState = "healthy"
	Degraded HealthState = "degraded" // readings are taken and kept, but somebody should look
	Fault    HealthState = "fault"    // readings are not taken or not kept
)

// Health is how the gateway does, and why.
type Health struct {
	State HealthState `json:"state"`
	Why   []string    `json:"why,omitempty"` // the worst first
}

// Modem is how the mobile modem does.
type Modem struct {
	Port         string     `json:"port"`
	State        string     `json:"state"`
	Error        string     `json:"error,omitempty"`
	Model        string     `json:"model,omitempty"`
	IMEI         string     `json:"imei,omitempty"`
	ICCID        string     `json:"iccid,omitempty"`
	SIM          string     `json:"sim,omitempty"`
	Attempts     *int       `json:"pin_attempts_left,omitempty"` // absent when the modem does not tell
	Registration string     `json:"registration"`
	Operator     string     `json:"operator,omitempty"`
	Technology   string     `json:"technology,omitempty"`
	Signal       *int       `json:"signal_dbm,omitempty"` // absent when it is not known
	Kind         string     `json:"signal_kind,omitempty"`
	Weak         bool       `json:"signal_weak,omitempty"`
	At           *time.Time `json:"at,omitempty"` // when it was so
	Resets       uint64     `json:"resets"`
	LastReset    *time.Time `json:"last_reset,omitempty"`
	LastBy       string     `json:"last_reset_by,omitempty"` // AT, or line
	NextReset    *time.Time `json:"next_reset,omitempty"`    // if the fog stays away
}

// Line is how one line does.
type Line struct {
	Line   string `json:"line"`
	Serial bool   `json:"serial_port,omitempty"`
	Meters int    `json:"meters"`
	Read   int    `json:"meters_read"` // of which the last visit brought something
	// Of visits since the start: all, those without an answer, and those with
	// garbage for one.
	Visits  uint64 `json:"visits"`
	Silent  uint64 `json:"visits_unanswered"`
	Garbled uint64 `json:"visits_garbled"`
	// Of requests, where the driver counts them: it repeats those that fail.
	Requests uint64 `json:"requests,omitempty"`
	Lost     uint64 `json:"requests_unanswered,omitempty"`
	Damaged  uint64 `json:"requests_damaged,omitempty"`
	Error    string `json:"error,omitempty"` // of the line itself, as of a port that is gone
}

// Buffer is what is in the buffer.
type Buffer struct {
	Path    string `json:"path"`
	Size    int64  `json:"size_bytes"`
	Most    int64  `json:"size_most_bytes"`
	Waiting uint64 `json:"rows_waiting"` // for the fog
}

// RunningConfig is the configuration that runs.
type RunningConfig struct {
	File   string `json:"file,omitempty"`
	Hash   string `json:"hash"` // SHA-256 of what runs, in hexadecimal digits
	Meters int    `json:"meters"`
}
