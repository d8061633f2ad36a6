package status

import "time"

// GatewayClock is the gateway's own clock.
type GatewayClock struct {
	Time       time.Time `json:"time"` // that it shows
	State      string    `json:"state"`
	Reason     string    `json:"reason,omitempty"` // why it is not synchronised
	Discipline string    `json:"discipline"`
	Source     string    `json:"source,omitempty"`
	// Bound is the largest error of Time in seconds; absent when nobody knows.
	Bound *float64 `json:"bound_seconds,omitempty"`
	// Offset is the true time minus Time, as far as known.
	Offset     float64    `json:"offset_seconds"`
	Slewing    float64    `json:"slewing_seconds,omitempty"` // of Offset, being corrected
	LastSync   *time.Time `json:"last_sync,omitempty"`
	Drift      float64    `json:"drift_ppm"` // of the oscillator, positive when it is slow
	DriftError float64    `json:"drift_error_ppm"`
	Interval   float64    `json:"poll_seconds"`
	Leap       int        `json:"leap,omitempty"` // seconds at the end of the month
	Steps      uint64     `json:"steps"`          // since the start
	// NotBefore is a time that has certainly passed.
	NotBefore time.Time    `json:"not_before"`
	Servers   []TimeServer `json:"servers"`
	Warnings  []string     `json:"warnings,omitempty"`
}

// TimeServer is what a time server said at the last poll.
type TimeServer struct {
	Server  string `json:"server"`
	Address string `json:"address,omitempty"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
	// Offset is the server's time minus the gateway's, in seconds.
	Offset   float64 `json:"offset_seconds"`
	Trip     float64 `json:"round_trip_seconds"`
	Distance float64 `json:"root_distance_seconds"` // largest error of Offset if it is honest
	Stratum  uint8   `json:"stratum"`
	NTS      bool    `json:"nts,omitempty"`
	Polls    uint64  `json:"polls"`
	Failures uint64  `json:"failures"`
}
