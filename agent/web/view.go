package web

import (
	"encoding/json"
	"time"
)

// What the API shows; docs/openapi.yaml says what the fields mean. Times are
// text, see Time; what is not known is the zero value, or nil where that could be
// known.

// Time gives a time as the API has it; nothing for the zero time.
func Time(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano)
}

// Snapshot is how everything does.
type Snapshot struct {
	Overview Overview
	Lines    []Line
	Meters   []Meter
	Events   []Alarm // the newest first
}

// Overview is how the gateway does.
type Overview struct {
	Health     string       `json:"health"` // the worst level of Conditions; filled in by the server
	Conditions []Condition  `json:"conditions"`
	Version    string       `json:"version"`
	Site       string       `json:"site"`
	Gateway    string       `json:"gateway"`
	TimeZone   string       `json:"time_zone"`
	UTCOffset  int          `json:"utc_offset"`
	Now        string       `json:"now"`
	Started    string       `json:"started"`
	Uptime     int64        `json:"uptime"`
	Clock      GatewayClock `json:"clock"`
	Uplink     Uplink       `json:"uplink"`
	Modem      *Modem       `json:"modem,omitempty"`
	Intake     Intake       `json:"intake"`
	Backlog    []Backlog    `json:"backlog"`
	Config     RunsWith     `json:"config"`
	Meters     Counts       `json:"meters"`
	Memory     Memory       `json:"memory"`
	Disk       Disk         `json:"disk"`
}

// Condition is something that is not as it should be.
type Condition struct {
	Code  string `json:"code"`
	Level Level  `json:"level"`
	Count uint64 `json:"count,omitempty"`
	Text  string `json:"text"`
}

// Level is how bad a condition is.
type Level string

// The levels.
const (
	Info Level = "info"
	Warn Level = "warn"
	Fail Level = "fail"
)

// GatewayClock is the gateway's own clock.
type GatewayClock struct {
	State      string   `json:"state"`
	Reason     string   `json:"reason,omitempty"`
	Discipline string   `json:"discipline"`
	Source     string   `json:"source,omitempty"`
	Bound      *float64 `json:"bound,omitempty"` // seconds
	Offset     float64  `json:"offset"`          // seconds
	LastSync   string   `json:"last_sync,omitempty"`
}

// Uplink is the way to the fog.
type Uplink struct {
	Broker      string   `json:"broker,omitempty"`
	Connected   bool     `json:"connected"`
	Error       string   `json:"error,omitempty"`
	Rows        uint64   `json:"rows"`
	Bytes       uint64   `json:"bytes"`
	Reconnects  uint64   `json:"reconnects"`
	BudgetDay   int64    `json:"budget_day,omitempty"`
	BudgetMonth int64    `json:"budget_month,omitempty"`
	BudgetSpent bool     `json:"budget_spent,omitempty"`
	Unconfirmed []string `json:"unconfirmed,omitempty"`
}

// Modem is how the mobile modem does that the agent minds.
type Modem struct {
	State        string `json:"state"`
	Error        string `json:"error,omitempty"`
	Registration string `json:"registration"`
	Operator     string `json:"operator,omitempty"`
	Technology   string `json:"technology,omitempty"`
	Signal       *int   `json:"signal_dbm,omitempty"`
	Weak         bool   `json:"signal_weak,omitempty"`
	Resets       uint64 `json:"resets"`
}

// Intake counts rows since the start.
type Intake struct {
	Read    uint64 `json:"read"`
	Stored  uint64 `json:"stored"`
	Waiting uint64 `json:"waiting"`
	Dropped uint64 `json:"dropped"`
	Commits uint64 `json:"commits"`
	Failed  uint64 `json:"failed"`
	Last    string `json:"last,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Backlog is what of a lane the fog has not.
type Backlog struct {
	Lane string `json:"lane"`
	Rows uint64 `json:"rows"`
	Lost uint64 `json:"lost"`
}

// RunsWith is the configuration.
type RunsWith struct {
	Hash   string   `json:"hash"`
	Trust  uint64   `json:"trust"`
	Layers []string `json:"layers"`
	Trial  string   `json:"trial,omitempty"`
	Last   string   `json:"last,omitempty"`
}

// Counts is how many meters there are in each state.
type Counts struct {
	Total     int `json:"total"`
	Waiting   int `json:"waiting"`
	OK        int `json:"ok"`
	Partial   int `json:"partial"`
	Failing   int `json:"failing"`
	Exchanged int `json:"exchanged"`
	Locked    int `json:"locked"`
}

// Memory is in octets; 0 where it is not known.
type Memory struct {
	Resident  int64 `json:"resident,omitempty"`
	Anonymous int64 `json:"anonymous,omitempty"`
	Available int64 `json:"available,omitempty"`
}

// Disk is in octets; 0 where it is not known.
type Disk struct {
	Total   int64 `json:"total,omitempty"`
	Free    int64 `json:"free,omitempty"`
	Buffer  int64 `json:"buffer,omitempty"`
	Written int64 `json:"written,omitempty"`
}

// Line is how a line does.
type Line struct {
	Line      string   `json:"line"`
	Kind      string   `json:"kind"` // serial, network or plc
	Meters    int      `json:"meters"`
	OK        int      `json:"ok"`
	Success   *float64 `json:"success,omitempty"`
	Last      string   `json:"last,omitempty"`
	Lent      bool     `json:"lent,omitempty"`
	Connected *bool    `json:"connected,omitempty"`
	Nodes     int      `json:"nodes,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// Meter is how a meter does.
type Meter struct {
	ID        string   `json:"id"`
	Line      string   `json:"line"`
	Protocol  string   `json:"protocol,omitempty"`
	State     string   `json:"state"`
	Serial    string   `json:"serial,omitempty"`
	Last      string   `json:"last,omitempty"`
	Success   *float64 `json:"success,omitempty"`
	SuccessOf int      `json:"success_of,omitempty"`
	Signal    *int     `json:"signal,omitempty"`
	Clock     *float64 `json:"clock,omitempty"` // seconds
	ClockBad  bool     `json:"clock_bad,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// MeterDetail is all of one meter.
type MeterDetail struct {
	Meter
	Configured  string      `json:"configured_serial,omitempty"`
	Model       string      `json:"model,omitempty"`
	Visits      uint64      `json:"visits"`
	Answered    uint64      `json:"answered"`
	Rows        uint64      `json:"rows"`
	Gaps        int64       `json:"gaps,omitempty"` // seconds
	Groups      []string    `json:"groups,omitempty"`
	ClockDetail *MeterClock `json:"clock_detail,omitempty"`
	Link        *Link       `json:"link,omitempty"`
	Values      []Value     `json:"values,omitempty"`
}

// MeterClock is a meter's clock.
type MeterClock struct {
	Offset                float64 `json:"offset"`      // seconds
	Uncertainty           float64 `json:"uncertainty"` // seconds
	Valid                 bool    `json:"valid"`
	Measured              string  `json:"measured"`
	GatewayUnsynchronised bool    `json:"gateway_unsynchronised,omitempty"`
	Policy                string  `json:"policy"`
	Pending               bool    `json:"pending,omitempty"`
	LastSet               string  `json:"last_set,omitempty"`
	Why                   string  `json:"why,omitempty"`
}

// Link is a meter's place on a power line.
type Link struct {
	State    string  `json:"state"`
	RTT      float64 `json:"rtt,omitempty"` // seconds
	Requests uint64  `json:"requests"`
	Lost     uint64  `json:"lost"`
	Level    uint64  `json:"level,omitempty"`
	Heard    string  `json:"heard,omitempty"`
}

// Value is the newest reading of a channel.
type Value struct {
	Channel   string          `json:"channel"`
	Short     string          `json:"short"`
	Time      string          `json:"time"`
	Value     json.RawMessage `json:"value"`
	Unit      string          `json:"unit"`
	Quality   string          `json:"quality"`
	Unchecked bool            `json:"unchecked,omitempty"`
	Lane      string          `json:"lane"`
	Period    uint32          `json:"period,omitempty"` // seconds
}

// Me is a consumer's own meter.
type Me struct {
	ID     string  `json:"id"`
	Site   string  `json:"site"`
	Serial string  `json:"serial,omitempty"`
	State  string  `json:"state"`
	Last   string  `json:"last,omitempty"`
	Values []Value `json:"values,omitempty"`
}

// Curve is what a channel showed on a day.
type Curve struct {
	Meter      string  `json:"meter"`
	Channel    string  `json:"channel"`
	Day        string  `json:"day"`
	TimeZone   string  `json:"time_zone"`
	From       string  `json:"from"`
	To         string  `json:"to"`
	Kind       string  `json:"kind"` // register or interval
	Cumulative bool    `json:"cumulative"`
	Period     uint32  `json:"period,omitempty"`
	Unit       string  `json:"unit"`
	Thinned    bool    `json:"thinned,omitempty"`
	Points     []Point `json:"points"`
}

// Point is one of a curve.
type Point struct {
	Time    string          `json:"time"`
	Value   json.RawMessage `json:"value"`
	Quality string          `json:"quality,omitempty"`
}

// Alarm is an event.
type Alarm struct {
	ID      string          `json:"id"`
	Time    string          `json:"time"`
	Meter   string          `json:"meter"`
	Channel string          `json:"channel"`
	Value   json.RawMessage `json:"value"`
	Quality string          `json:"quality,omitempty"`
}

type alarms struct {
	Conditions []Condition `json:"conditions"`
	Events     []Alarm     `json:"events"`
}

// start is everything for a first look.
type start struct {
	Role      Role      `json:"role"`
	Name      string    `json:"name"`
	Place     string    `json:"place"`
	Now       string    `json:"now"`
	TimeZone  string    `json:"time_zone"`
	UTCOffset int       `json:"utc_offset"`
	Overview  *Overview `json:"overview,omitempty"`
	Lines     *[]Line   `json:"lines,omitempty"`
	Meters    *[]Meter  `json:"meters,omitempty"`
	Alarms    *alarms   `json:"alarms,omitempty"`
	Me        *Me       `json:"me,omitempty"`
}
