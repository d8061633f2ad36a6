package configs

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"gridgate/internal/meter"
)

// Limits of an uplink.
const (
	maxBrokers    = 8
	maxInterfaces = 4
	maxWindows    = 8
)

// Budget bounds what an uplink sends and receives, in bytes of IP packets; 0 is
// without a bound.
type Budget struct {
	Day   int64 // of the site's time zone
	Month int64 // of the calendar
}

// Schedules say when lanes are sent. Alarms never wait.
type Schedules struct{ Billing, Interval, Instant Schedule }

// Of gives the schedule of a lane.
func (s Schedules) Of(lane meter.Lane) Schedule {
	switch lane {
	case meter.Billing:
		return s.Billing
	case meter.Interval:
		return s.Interval
	case meter.Instant:
		return s.Instant
	default:
		return Schedule{}
	}
}

// Schedule says when a lane is sent.
type Schedule struct {
	Latency time.Duration // how long rows wait for company
	Windows []Window      // times of day; none is always
}

// Window is a time of day, in the site's time zone. When To is not after From
// it ends the next day.
type Window struct{ From, To time.Duration } // since midnight

func budgetFields() []field[*Budget] {
	return []field[*Budget]{
		{name: "day", read: func(r *reader, at string, n *yaml.Node, b *Budget) {
			b.Day = r.size(at, n, 100e3, 1e12)
		}},
		{name: "month", read: func(r *reader, at string, n *yaml.Node, b *Budget) {
			b.Month = r.size(at, n, 1e6, 10e12)
		}},
	}
}

func laneFields() []field[*Schedules] {
	return []field[*Schedules]{
		section("billing", false, scheduleFields(), func(s *Schedules) *Schedule { return &s.Billing }),
		section("interval", false, scheduleFields(), func(s *Schedules) *Schedule { return &s.Interval }),
		section("instant", false, scheduleFields(), func(s *Schedules) *Schedule { return &s.Instant }),
	}
}

func scheduleFields() []field[*Schedule] {
	return []field[*Schedule]{
		{name: "latency", read: func(r *reader, at string, n *yaml.Node, s *Schedule) {
			s.Latency = r.duration(at, n, 0, day)
		}},
		{name: "windows", read: func(r *reader, at string, n *yaml.Node, s *Schedule) {
			r.list(at, n, maxWindows, func(at string, n *yaml.Node) {
				r.checked(at, n, "times of day such as 22:00-06:00", func(text string) bool {
					w, ok := parseWindow(text)
					s.Windows = append(s.Windows, w)
					return ok
				})
			})
		}},
	}
}

// parseWindow reads HH:MM-HH:MM.
func parseWindow(s string) (w Window, ok bool) {
	from, to, _ := strings.Cut(s, "-")
	var a, b bool
	w.From, a = parseClock(from)
	w.To, b = parseClock(to)
	return w, a && b && w.From != w.To && w.From < day
}

func parseClock(s string) (time.Duration, bool) {
	if s == "24:00" {
		return day, true
	}
	t, err := time.Parse("15:04", s)
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, err == nil && len(s) == 5
}

func isInterface(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return isToken(s) && len(s) < 16 && !strings.ContainsAny(s, "/:") // IFNAMSIZ
}

// once adds s to a list, in which it must not be yet.
func (r *reader) once(at string, n *yaml.Node, list []string, s string) []string {
	if s == "" {
		return list
	}
	if slices.Contains(list, s) {
		r.fail(at, n, s, "is in the list already")
	}
	return append(list, s)
}

func uplinkFields() []field[*Uplink] {
	return []field[*Uplink]{
		{name: "broker", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			u.Broker = r.broker(at, n)
		}},
		{name: "brokers", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			r.list(at, n, maxBrokers, func(at string, n *yaml.Node) {
				u.Brokers = r.once(at, n, u.Brokers, r.broker(at, n))
			})
		}},
		{name: "interfaces", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			r.list(at, n, maxInterfaces, func(at string, n *yaml.Node) {
				u.Interfaces = r.once(at, n, u.Interfaces, r.checked(at, n, "a network interface such as wwan0, or an address of this machine", isInterface))
			})
		}},
		{name: "client_id", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			u.ClientID = r.checked(at, n, "1 to 128 visible ASCII characters, none of them '+', '#' or '/'", func(s string) bool {
				return isToken(s) && len(s) <= 128 && !strings.ContainsAny(s, "+#/")
			})
		}},
		{name: "username", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			u.Username = r.checked(at, n, "1 to 256 characters", func(s string) bool {
				return s != "" && len(s) <= 256 && isPrintable(s)
			})
		}},
		{name: "password", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			u.Password = r.secret(at, n)
		}},
		{name: "ca", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			u.CA = r.path(at, n, 4096)
		}},
		{name: "certificate", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			u.Certificate = r.path(at, n, 4096)
		}},
		{name: "key", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			r.keyFile(at, n, u)
		}},
		{name: "keep_alive", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			u.KeepAlive = r.duration(at, n, 10*time.Second, 15*time.Minute)
		}},
		{name: "confirm", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			u.Confirm = Confirm(r.oneOf(at, n, string(ConfirmBroker), string(ConfirmFog)))
		}},
		{name: "delta", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			u.Delta = r.boolean(at, n)
		}},
		{name: "start_jitter", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			u.StartJitter = r.duration(at, n, 0, time.Hour)
		}},
		section("budget", false, budgetFields(), func(u *Uplink) *Budget { return &u.Budget }),
		section("lanes", false, laneFields(), func(u *Uplink) *Schedules { return &u.Lanes }),
		{name: "max_message", read: func(r *reader, at string, n *yaml.Node, u *Uplink) {
			u.MaxMessage = r.size(at, n, 1<<10, 256<<10)
		}},
	}
}

// broker reads the address of a broker and fills in the port.
func (r *reader) broker(at string, n *yaml.Node) string {
	const want = "tcp://HOST:PORT or ssl://HOST:PORT"
	s, ok := r.text(at, n, want)
	if !ok {
		return ""
	}
	if strings.Contains(s, "@") {
		r.fail(at, n, "", "credentials do not stand in the address: write them as username and password beside it")
		return ""
	}
	scheme, hostPort, _ := strings.Cut(s, "://")
	port := map[string]string{"tcp": "1883", "ssl": "8883"}[scheme]
	if strings.LastIndexByte(hostPort, ':') <= strings.LastIndexByte(hostPort, ']') {
		hostPort += ":" + port
	}
	host, given, err := net.SplitHostPort(hostPort)
	number, perr := strconv.ParseUint(given, 10, 16)
	if port == "" || err != nil || perr != nil || number == 0 || !isToken(host) || strings.ContainsAny(host, "/?#%") {
		r.fail(at, n, s, "want %s", want)
		return ""
	}
	return scheme + "://" + hostPort
}

// uplink checks what the keys of the uplink cannot check alone.
func (r *reader) uplink(d *document, n *yaml.Node, broken bool) {
	u := &d.Uplink
	if u.ClientID == "" {
		u.ClientID = string(d.Site) + "_" + string(d.Gateway) // no dot: NATS refuses it
	}
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	if u.Broker != "" {
		if slices.Contains(u.Brokers, u.Broker) {
			r.fail("uplink.brokers", n, u.Broker, "is in broker already")
		}
		u.Brokers = slices.Insert(u.Brokers, 0, u.Broker)
	}
	if len(u.Brokers) == 0 {
		if !broken {
			r.fail("uplink.broker", n, "", "missing; it has no default")
		}
		return
	}
	u.Broker = u.Brokers[0]
	if i := slices.IndexFunc(u.Brokers, func(b string) bool { return b[:4] != u.Broker[:4] }); i > 0 {
		r.fail("uplink.brokers", n, u.Brokers[i], "want tcp:// everywhere or ssl:// everywhere")
	}
	if !u.TLS() && (u.CA+u.Certificate != "" || u.hasKey()) {
		r.fail("uplink.broker", n, u.Broker, "ca, certificate and key need an encrypted connection: want ssl://HOST:PORT")
	}
	if (u.Certificate == "") == u.hasKey() {
		r.fail("uplink", n, "", "certificate and key belong together; one of them is missing")
	}
	if u.Delta && u.Confirm != ConfirmFog {
		r.fail("uplink.delta", n, "", "needs confirm: fog, since batches are then deltas against what the fog has confirmed")
	}
	if u.Username == "" && !u.Password.IsZero() {
		r.fail("uplink", n, "", "has a password without a username")
	}
}

// identity is everything that an uplink works with. It holds no secret.
func (c *Config) identity() string {
	s := fmt.Sprintf("%+v", c.Uplink)
	if c.Uplink.Budget != (Budget{}) || len(c.Uplink.Lanes.Billing.Windows)+len(c.Uplink.Lanes.Interval.Windows)+len(c.Uplink.Lanes.Instant.Windows) > 0 {
		s += c.TimeZone.String()
	}
	s += fmt.Sprint(c.Trust.Groups) // their orders are listened to
	return s
}
