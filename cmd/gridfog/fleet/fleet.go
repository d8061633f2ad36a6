// Package fleet keeps what the fog knows of its gateways: who is alive and since
// when, what waits, how the clocks are, what runs, and how much of yesterday's
// intervals was there in the morning.
//
//	up/state (retained, and the will) ──┐
//	up/readings/<lane> ── track ────────┼─> Fleet ──> Gateway: table, JSON, metrics
//	database of ingest ── Stored ───────┘
package fleet

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"gridgate/agent/batch"
	"gridgate/internal/mqtt"
)

// maxState bounds a state, in bytes; maxGateways bounds what a hostile sender
// makes us remember.
const (
	maxState    = 16 << 10
	maxGateways = 100_000
)

// Gateway is how a gateway does. Times are zero, and pointers nil, where nobody
// knows.
type Gateway struct {
	Site    string `json:"site"`
	Gateway string `json:"gateway"`
	// State is online, offline, or unknown: it has sent readings and no state.
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"` // of offline: stopped, moved or lost
	// Since is when State began: by the gateway's clock, or when the broker told
	// it while we listened. Of a gateway that was lost before, After is when the
	// connection began that was lost.
	Since     *time.Time `json:"since,omitempty"`
	After     *time.Time `json:"after,omitempty"`
	Started   *time.Time `json:"started,omitempty"` // the gateway's program
	Told      *time.Time `json:"told,omitempty"`    // when the gateway wrote this
	Version   string     `json:"version,omitempty"`
	Config    string     `json:"config,omitempty"` // 16 hexadecimal digits
	Epoch     string     `json:"epoch,omitempty"`
	TimeZone  string     `json:"time_zone,omitempty"`
	Meters    *int64     `json:"meters,omitempty"`
	Clock     *Clock     `json:"clock,omitempty"`
	Backlog   *Backlog   `json:"backlog,omitempty"`
	Unconfirm []string   `json:"unconfirmed,omitempty"` // lanes that the fog does not confirm
	Withheld  []string   `json:"withheld,omitempty"`    // lanes that wait for the data budget
	// Reading is when the gateway last stored readings or, if that is later, the
	// time of the newest that came.
	Reading *time.Time `json:"reading,omitempty"`
	Arrived *time.Time `json:"arrived,omitempty"` // when a batch last came here
	Missing uint64     `json:"missing"`           // numbers that should have come since we listen
	// Orders is what the gateway says of its signed configuration.
	Orders *Configuration `json:"orders,omitempty"`
	Shares []Share        `json:"shares,omitempty"` // of the last days whose deadlines have passed
}

// Clock is whether somebody vouches for a gateway's clock, and for how much.
type Clock struct {
	Synchronised bool   `json:"synchronised"`
	Bound        *int64 `json:"bound_ms,omitempty"`
}

// Backlog is how many numbers of each lane wait for their acknowledgement.
type Backlog struct {
	Alarm    uint64 `json:"alarm"`
	Billing  uint64 `json:"billing"`
	Interval uint64 `json:"interval"`
	Instant  uint64 `json:"instant"`
}

// Of gives the numbers of a lane.
func (b Backlog) Of(lane batch.Lane) uint64 {
	switch lane {
	case batch.Alarm:
		return b.Alarm
	case batch.Billing:
		return b.Billing
	case batch.Interval:
		return b.Interval
	case batch.Instant:
		return b.Instant
	}
	return 0
}

// Total gives the numbers of all lanes.
func (b Backlog) Total() uint64 { return b.Alarm + b.Billing + b.Interval + b.Instant }

// state is the payload of up/state.
type state struct {
	State       string    `json:"state"`
	Reason      string    `json:"reason"`
	Version     string    `json:"version"`
	Epoch       string    `json:"epoch"`
	At          time.Time `json:"at"`
	Connected   time.Time `json:"connected"`
	Started     time.Time `json:"started"`
	Config      string    `json:"config"`
	TimeZone    string    `json:"time_zone"`
	Meters      *int64    `json:"meters"`
	Clock       *Clock    `json:"clock"`
	Backlog     *Backlog  `json:"backlog"`
	Reading     time.Time `json:"reading"`
	Unconfirmed []string  `json:"unconfirmed"`
	Withheld    []string  `json:"withheld"`
}

// parseState reads a state. What is not known is skipped.
func parseState(b []byte) (s state, err error) {
	if len(b) > maxState {
		return s, fmt.Errorf("state: %d bytes, longer than %d", len(b), maxState)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("state: %w", err)
	}
	if s.State != "online" && s.State != "offline" {
		return s, fmt.Errorf("state: %q is neither online nor offline", s.State)
	}
	for _, text := range append([]string{s.Reason, s.Version, s.Epoch, s.Config, s.TimeZone}, append(s.Unconfirmed, s.Withheld...)...) {
		if len(text) > 100 {
			return s, errors.New("state: a text in it is longer than 100 bytes")
		}
	}
	return s, nil
}

// Fleet is all gateways. Make one with New. It is not safe for concurrent use.
type Fleet struct {
	Intervals Intervals
	zone      *time.Location // of sites that do not say theirs
	gateways  map[place]*Gateway
	orders    map[place]*Configuration
	zones     map[string]*time.Location // by name, nil for one that nobody knows
}

// New gives a fleet of nobody. zone is of the gateways that do not tell theirs.
func New(zone *time.Location) *Fleet {
	return &Fleet{zone: zone, gateways: map[place]*Gateway{}, orders: map[place]*Configuration{}, zones: map[string]*time.Location{}}
}

// ErrTooMany says that there are more gateways than we remember.
var ErrTooMany = fmt.Errorf("more than %d gateways", maxGateways)

func (f *Fleet) gateway(site, gateway string) (*Gateway, error) {
	at := place{site, gateway}
	g := f.gateways[at]
	if g == nil {
		if len(f.gateways) >= maxGateways {
			return nil, ErrTooMany
		}
		g = &Gateway{Site: site, Gateway: gateway, State: "unknown"}
		f.gateways[at] = g
	}
	return g, nil
}

// State takes a message of up/state. retained says that it is from before we
// listened; an empty payload takes the gateway off the list.
func (f *Fleet) State(topic mqtt.Topic, payload []byte, retained bool, now time.Time) error {
	site, name := string(topic.Site), string(topic.Gateway)
	if len(payload) == 0 {
		delete(f.gateways, place{site, name})
		return nil
	}
	s, err := parseState(payload)
	if err != nil {
		return err
	}
	g, err := f.gateway(site, name)
	if err != nil {
		return err
	}
	g.since(s, retained, now)
	g.State, g.Reason, g.Unconfirm, g.Withheld = s.State, s.Reason, s.Unconfirmed, s.Withheld
	g.Version, g.Epoch = cmp.Or(s.Version, g.Version), cmp.Or(s.Epoch, g.Epoch)
	if s.State == "offline" && s.Reason == "lost" && g.Told != nil && !s.At.After(*g.Told) {
		return nil // a will is as old as its connection: what we know is newer
	}
	g.Config, g.TimeZone = cmp.Or(s.Config, g.Config), cmp.Or(s.TimeZone, g.TimeZone)
	g.Told, g.Started = known(s.At, g.Told), known(s.Started, g.Started)
	if r := known(s.Reading, nil); r != nil && (g.Reading == nil || r.After(*g.Reading)) {
		g.Reading = r
	}
	g.Meters, g.Clock, g.Backlog = cmp.Or(s.Meters, g.Meters), cmp.Or(s.Clock, g.Clock), cmp.Or(s.Backlog, g.Backlog)
	return nil
}

// since notes when the state of s began.
func (g *Gateway) since(s state, retained bool, now time.Time) {
	lost := s.State == "offline" && s.Reason == "lost"
	switch {
	case s.State == "online" && !s.Connected.IsZero():
		g.Since, g.After = known(s.Connected, nil), nil
	case s.State == g.State && s.Reason == g.Reason && g.Since != nil:
	case lost && retained, s.State == "online" && retained:
		g.Since, g.After = nil, known(s.At, nil)
	case s.State == "offline" && !lost && !s.At.IsZero():
		g.Since, g.After = known(s.At, nil), nil
	case !retained:
		g.Since, g.After = known(now, nil), nil
	default:
		g.Since, g.After = nil, nil
	}
}

// known gives a time, or else what was known before.
func known(t time.Time, before *time.Time) *time.Time {
	if t.IsZero() {
		return before
	}
	return &t
}

// Rows takes the rows of a batch that are new.
func (f *Fleet) Rows(site, gateway string, rows []batch.Row, now time.Time) error {
	g, err := f.gateway(site, gateway)
	if err != nil {
		return err
	}
	g.Arrived = known(now, nil)
	zone := f.ZoneOf(g)
	for i := range rows {
		f.Intervals.Count(site, gateway, &rows[i], now, zone)
		// A meter whose clock is ahead has not read the future.
		if t := rows[i].Stamp.UTC(); !t.After(now.Add(time.Minute)) && (g.Reading == nil || t.After(*g.Reading)) {
			g.Reading = known(t, nil)
		}
	}
	return nil
}

// SetMissing notes how many numbers of each gateway should have come, by site
// and gateway.
func (f *Fleet) SetMissing(all map[[2]string]uint64) {
	for at, g := range f.gateways {
		g.Missing = all[[2]string{at.Site, at.Gateway}]
	}
}

// ZoneOf gives the time zone of a gateway's site.
func (f *Fleet) ZoneOf(g *Gateway) *time.Location {
	if zone := f.load(g.TimeZone); zone != nil {
		return zone
	}
	return f.zone
}

// ZoneOfSite gives the time zone that a gateway of the site tells, or else the
// one of a name, from elsewhere.
func (f *Fleet) ZoneOfSite(site, otherwise string) *time.Location {
	for at, g := range f.gateways {
		if zone := f.load(g.TimeZone); at.Site == site && zone != nil {
			return zone
		}
	}
	if zone := f.load(otherwise); zone != nil {
		return zone
	}
	return f.zone
}

// load gives a zone by its name; nil is unknown.
func (f *Fleet) load(name string) *time.Location {
	if name == "" {
		return nil
	}
	zone, tried := f.zones[name]
	if !tried && len(f.zones) < maxZones {
		zone, _ = time.LoadLocation(name) // nil for one that nobody knows
		f.zones[name] = zone
	}
	return zone
}

// maxZones bounds how many names of zones are remembered; there are some 600.
const maxZones = 2000

// Gateways gives all gateways in the order of their names, with the shares of
// Intervals where counted says so.
func (f *Fleet) Gateways(now time.Time, counted bool) []Gateway {
	all := make([]Gateway, 0, len(f.gateways))
	for at, g := range f.gateways {
		one := *g
		one.Orders = f.orders[at]
		for _, hour := range []int{FirstHour, SecondHour} {
			if s, ok := f.Intervals.Share(g.Site, g.Gateway, hour, now, f.ZoneOf(g)); counted && ok {
				one.Shares = append(one.Shares, s)
			}
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Gateway) int { return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Gateway, b.Gateway)) })
	return all
}

// SetShares notes the shares that the database gives of a site's gateways.
func (f *Fleet) SetShares(site string, shares map[string][]Share) {
	for at, g := range f.gateways {
		if at.Site == site {
			g.Shares = shares[at.Gateway]
		}
	}
	for name, s := range shares { // those that have never said anything
		if g, err := f.gateway(site, name); err == nil {
			g.Shares = s
		}
	}
}

// Total adds up the shares of gateways, hour by hour. Gateways whose day is
// another one, by their time zones, are added all the same; Day is the latest.
func Total(all []Gateway) (total []Share) {
	for _, hour := range []int{FirstHour, SecondHour} {
		sum := Share{Hour: hour}
		for _, g := range all {
			for _, s := range g.Shares {
				if s.Hour == hour {
					sum.Day = max(sum.Day, s.Day)
					sum.Expected += s.Expected
					sum.Complete += s.Complete
				}
			}
		}
		if sum.Expected > 0 {
			total = append(total, sum)
		}
	}
	return total
}
