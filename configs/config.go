// Package configs reads what gridgate is configured with: one strict YAML
// document. Everything that is wrong with it is found in one pass, each with
// file, line, key, value and what is wanted there. What it gives is typed,
// checked and complete: defaults are filled in, groups resolved, addresses
// parsed. It opens no line and reads no secret.
//
// It embeds the reference (every key with its default), the configuration of
// the demo, and the register maps of Modbus meters.
package configs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"gridgate/drivers/address"
	"gridgate/internal/meter"
)

// Version is the version of the documents that this package reads.
const Version = 1

// Config is a checked configuration. It is not changed once made, so that it
// may be read from many goroutines.
type Config struct {
	Site     meter.ID
	Gateway  meter.ID
	TimeZone *time.Location // of the site and of its meters' clocks; UTC unless told
	Models   string         // a directory of register maps, before the built-in ones
	Buffer   Buffer
	Intake   Intake
	Poll     Poll
	Mains    Mains
	Time     Time
	// MeterClocks holds for meters that say nothing else.
	MeterClocks MeterClocks
	Push        Push
	Uplink      Uplink
	Control     Control
	Page        Page
	Trust       Trust
	Update      Update
	Outputs     []Output
	Modem       Modem
	Leds        []Led
	Groups      []Group // in the order of the document
	Meters      []Meter // in the order of the document

	hash    string
	secrets []string               // names in the gateway's store
	models  map[string]loadedModel // of the meters, by name
}

// Buffer says where readings wait, and how many of them.
type Buffer struct {
	Path  string // a directory
	All   Limit
	Lanes [4]Limit // by meter.Lane
}

// Limit bounds what is kept of readings; 0 is no bound.
type Limit struct {
	Size int64 // bytes of flash
	Age  time.Duration
}

// Intake says how readings are gathered before they are stored.
type Intake struct {
	Window     time.Duration // interval and instant rows are stored at most this often
	Offline    time.Duration // what Window grows to while the fog cannot be reached
	MaxWaiting int64         // bytes of rows that may wait in memory
}

// Poll says how meters are visited.
type Poll struct {
	Parallel int // meters visited at a time, over all lines that are no serial ports
}

// Mains is what the site is supplied with; readings are judged by it.
type Mains struct {
	Voltage   float64 // nominal, between a phase and neutral, in volts; 0 is not told
	Frequency float64 // nominal, in hertz; 0 is not told
}

// Push says where meters are heard that send unasked.
type Push struct {
	Listen []Listen
	Title  address.Title // ours: confirmations of ciphered pushes carry it
}

// Listen is one place where to listen.
type Listen struct {
	Text string // as the document has it; it holds no secret
	address.Listen
}

// Fuse is what is before a meter. The zero value is not told.
type Fuse struct {
	Phases  int
	Amperes float64 // of each phase
}

// Confirm is what makes a batch leave the buffer's queue.
type Confirm string

// What confirms a batch.
const (
	ConfirmBroker Confirm = "broker" // the broker's PUBACK
	ConfirmFog    Confirm = "fog"    // the fog's word that it is stored
)

// Uplink says how batches reach the fog.
type Uplink struct {
	Broker      string   // the first of Brokers
	Brokers     []string // tcp://host:port or ssl://host:port, the preferred one first
	Interfaces  []string // devices or addresses of this machine, the preferred one first; none is the system's choice
	ClientID    string   // SITE_GATEWAY unless told
	Username    string
	Password    address.Secret // a reference, or none
	CA          string         // paths of PEM files, with ssl only
	Certificate string
	Key         string
	KeySecret   address.Secret // the key itself, where it is in no file
	KeepAlive   time.Duration  // the shortest
	StartJitter time.Duration  // the first connection waits a random part of it
	Budget      Budget
	Lanes       Schedules
	Confirm     Confirm
	Delta       bool  // batches are deltas against what the fog has confirmed
	MaxMessage  int64 // bytes of one message
}

// TLS says whether the connection is encrypted.
func (u Uplink) TLS() bool { return len(u.Broker) > 3 && u.Broker[:3] == "ssl" }

// Control says where the running agent is spoken to.
type Control struct {
	Socket string // path of a Unix socket
}

// Trust says whose orders are taken.
type Trust struct {
	File   string        // the first trust document; what was taken since is newer
	Groups []meter.ID    // of gateways, whose orders are for this one too
	Prove  time.Duration // how long a configuration may take to prove itself
}

// Group is what to read, how often and into which lane. It has either Channels
// or Profile.
type Group struct {
	Name     meter.ID
	Lane     meter.Lane
	Every    time.Duration
	Align    bool // due at full multiples of Every, counted from local midnight
	Channels []meter.Channel
	Profile  meter.Channel
	Back     time.Duration // how far back gaps of the profile are filled in
	Clear    bool          // take bits that are stored out of the alarm registers
}

// Meter is one meter and what to read of it.
type Meter struct {
	ID      meter.ID
	Serial  string // the serial number that the meter must show; empty for any
	Fuse    Fuse
	Clock   ClockPolicy // "" is MeterClocks, see Config.MeterClock
	Address address.Address
	Groups  []Group
	// Protected says that no order ever switches it.
	Protected bool
	// Auto says that the meter is read what its own list of objects has; then
	// there are no Groups.
	Auto bool
}

// Line is one physical medium and the meters on it, in the order of the
// document.
type Line struct {
	Key    string // address.Address.Line
	Serial bool   // a serial port, not a connection
	Meters []Meter
}

// Load reads the configuration in the file of that name. Problems with what it
// says are Problems; other errors are about the file.
func Load(path string) (*Config, error) {
	l, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, l.Data)
}

// Read gives the file of that name as a layer, unchecked.
func Read(path string) (Layer, error) {
	f, err := os.Open(path)
	if err != nil {
		return Layer{}, fmt.Errorf("configuration: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return Layer{}, fmt.Errorf("configuration: %w", err)
	}
	return Layer{path, data}, nil
}

// Parse reads a configuration. name stands for the file in problems. The error
// is Problems.
func Parse(name string, data []byte) (*Config, error) { return ParseOn(name, data, nil) }

// ParseOn is Parse on a gateway with that store of secrets: a reference to one
// that is not there is a problem. nil looks for none.
func ParseOn(name string, data []byte, store Store) (*Config, error) {
	r := &reader{file: name}
	top := r.document(data)
	if top == nil {
		return nil, r.err()
	}
	d := newDocument()
	has := mapping(r, "", top, documentFields(), d)
	r.uplink(d, has["uplink"], slices.ContainsFunc(r.problems, func(p *Problem) bool { return strings.HasPrefix(p.Key, "uplink.broker") }))
	r.time(d, has["time"])
	r.meterClocks(d, has["meter_clocks"])
	r.modelsDir(d, has)
	r.meters(d)
	r.stored(d, store)
	r.page(d, has["page"])
	r.modem(d, has["modem"])
	d.Update.setDefaults(d.Buffer.Path, d.Trust.Prove)
	if err := r.err(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	d.hash = hex.EncodeToString(sum[:])
	return &d.Config, nil
}

// Hash gives the SHA-256 of the document, in hexadecimal digits.
func (c *Config) Hash() string { return c.hash }

// Meter gives the meter of that name.
func (c *Config) Meter(id meter.ID) (Meter, bool) {
	i := slices.IndexFunc(c.Meters, func(m Meter) bool { return m.ID == id })
	if i < 0 {
		return Meter{}, false
	}
	return c.Meters[i], true
}

// Lines gives the lines in the order in which the document names them first.
func (c *Config) Lines() []Line {
	var lines []Line
	at := make(map[string]int, len(c.Meters))
	for _, m := range c.Meters {
		i, ok := at[m.Address.Line]
		if !ok {
			i = len(lines)
			at[m.Address.Line] = i
			lines = append(lines, Line{Key: m.Address.Line, Serial: m.Address.IsSerial()})
		}
		lines[i].Meters = append(lines[i].Meters, m)
	}
	return lines
}

// WithoutMeters gives the configuration with nothing to read.
func (c *Config) WithoutMeters() *Config {
	next := *c
	next.Meters = nil
	return &next
}
