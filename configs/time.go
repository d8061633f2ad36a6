package configs

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Time says how the gateway's clock is kept.
type Time struct {
	Servers    []TimeServer
	Discipline Discipline
	MinPoll    time.Duration // the first interval between polls of the servers, and that after trouble
	MaxPoll    time.Duration
	Step       time.Duration // a clock that is further off is set, not slewed
	MaxError   time.Duration // a clock that may be further off counts as unsynchronised
	Hardware   string        // path of the hardware clock's device; empty for none
	Modem      string        // path of the port on which a modem takes AT commands; empty for none
	CA         string        // path of a PEM file: who may have signed certificates of NTS servers
}

// Discipline says who keeps the system clock right.
type Discipline string

// The disciplines.
const (
	DisciplineObserve Discipline = "observe" // another program
	DisciplineAgent   Discipline = "agent"
)

// TimeServer is an NTP server.
type TimeServer struct {
	Address string // host or host:port
	NTS     bool   // Address is of the key exchange
}

func (s TimeServer) String() string {
	if s.NTS {
		return "nts://" + s.Address
	}
	return s.Address
}

const maxTimeServers = 8

func defaultTime() Time {
	return Time{
		Discipline: DisciplineObserve, MinPoll: 64 * time.Second, MaxPoll: 4 * time.Hour,
		Step: 500 * time.Millisecond, MaxError: time.Minute, Hardware: "/dev/rtc0",
	}
}

func timeFields() []field[*Time] {
	return []field[*Time]{
		{name: "servers", read: func(r *reader, at string, n *yaml.Node, t *Time) {
			r.list(at, n, maxTimeServers, func(at string, n *yaml.Node) {
				s, ok := r.timeServer(at, n)
				if ok && slices.Contains(t.Servers, s) {
					r.fail(at, n, s.String(), "is in the list already; the same server twice is one server")
				}
				t.Servers = append(t.Servers, s)
			})
		}},
		{name: "discipline", read: func(r *reader, at string, n *yaml.Node, t *Time) {
			t.Discipline = Discipline(r.oneOf(at, n, string(DisciplineObserve), string(DisciplineAgent)))
		}},
		{name: "min_poll", read: func(r *reader, at string, n *yaml.Node, t *Time) {
			t.MinPoll = r.duration(at, n, 16*time.Second, time.Hour)
		}},
		{name: "max_poll", read: func(r *reader, at string, n *yaml.Node, t *Time) {
			t.MaxPoll = r.duration(at, n, 16*time.Second, day)
		}},
		{name: "step", read: func(r *reader, at string, n *yaml.Node, t *Time) {
			t.Step = r.duration(at, n, 10*time.Millisecond, 10*time.Second)
		}},
		{name: "max_error", read: func(r *reader, at string, n *yaml.Node, t *Time) {
			t.MaxError = r.duration(at, n, time.Second, time.Hour)
		}},
		{name: "hardware_clock", read: func(r *reader, at string, n *yaml.Node, t *Time) {
			if s, ok := r.text(at, n, "a path, or none"); ok && s != "none" {
				t.Hardware = r.path(at, n, 4096)
			} else {
				t.Hardware = ""
			}
		}},
		{name: "modem", read: func(r *reader, at string, n *yaml.Node, t *Time) {
			t.Modem = r.path(at, n, 4096)
		}},
		{name: "ca", read: func(r *reader, at string, n *yaml.Node, t *Time) {
			t.CA = r.path(at, n, 4096)
		}},
	}
}

// timeServer reads the address of an NTP server.
func (r *reader) timeServer(at string, n *yaml.Node) (s TimeServer, ok bool) {
	const want = "a time server: HOST, HOST:PORT, or nts://HOST[:PORT]"
	r.checked(at, n, want, func(text string) bool {
		s, ok = ParseTimeServer(text)
		return ok
	})
	return s, ok
}

// ParseTimeServer reads HOST[:PORT] or nts://HOST[:PORT]; a host may be an IPv6
// address, in brackets when a port follows.
func ParseTimeServer(text string) (s TimeServer, ok bool) {
	s.Address, s.NTS = strings.CutPrefix(text, "nts://")
	host := s.Address
	if net.ParseIP(s.Address) == nil && strings.Contains(s.Address, ":") {
		var port string
		var err error
		if host, port, err = net.SplitHostPort(s.Address); err != nil {
			return TimeServer{}, false
		}
		if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
			return TimeServer{}, false
		}
	}
	if !isToken(host) || len(host) > 253 || strings.ContainsAny(host, "/?#@[]") {
		return TimeServer{}, false
	}
	return s, true
}

// time checks what the keys of the time cannot check alone.
func (r *reader) time(d *document, n *yaml.Node) {
	t := &d.Time
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	if t.Discipline == DisciplineAgent && len(t.Servers) == 0 {
		r.fail("time.discipline", n, "agent", "needs time.servers: without them there is nothing to set the clock by")
	}
	if t.MinPoll > t.MaxPoll && t.MaxPoll > 0 {
		r.fail("time.min_poll", n, formatDuration(t.MinPoll), "want at most max_poll, %s", formatDuration(t.MaxPoll))
	}
	if t.CA != "" && !slices.ContainsFunc(t.Servers, func(s TimeServer) bool { return s.NTS }) {
		r.fail("time.ca", n, "", "is for servers with nts:// only, and there is none")
	}
}

// Advice says what is allowed but should be known to whoever wrote this
// configuration.
func (c *Config) Advice() (list []string) {
	switch t := c.Time; {
	case len(t.Servers) == 1:
		list = append(list, "time.servers: one server only: if it is wrong nobody notices; want three or more")
	case len(t.Servers) == 2:
		list = append(list, "time.servers: two servers only: if one is wrong it cannot be told which; want three or more")
	}
	return list
}
