package mqtt

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"gridgate/internal/meter"
)

// prefix starts every topic; the number is the version of the contract.
const prefix = "gridgate/1"

// Kind says what a topic carries.
type Kind uint8

// The kinds of topics.
const (
	Readings  Kind = iota + 1 // up/readings/<lane>: batches of rows
	Catalogue                 // up/catalog/<hash>: what batches refer to; retained
	State                     // up/state: online or offline; retained, and the will
)

func (k Kind) String() string {
	switch k {
	case Readings:
		return "readings"
	case Catalogue:
		return "catalog"
	case State:
		return "state"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Topic is a topic of the contract, taken apart.
//
//	gridgate/1/<site>/<gateway>/up/readings/<lane>
//	gridgate/1/<site>/<gateway>/up/catalog/<hash>   16 hexadecimal digits
//	gridgate/1/<site>/<gateway>/up/state
type Topic struct {
	Site    meter.ID
	Gateway meter.ID
	Kind    Kind
	Lane    meter.Lane // of Readings
	Hash    [8]byte    // of a Catalogue
}

// ReadingsTopic is where a gateway's batches of one lane go.
func ReadingsTopic(site, gateway meter.ID, lane meter.Lane) string {
	return Topic{Site: site, Gateway: gateway, Kind: Readings, Lane: lane}.String()
}

// CatalogueTopic is where the catalogue with this hash is retained.
func CatalogueTopic(site, gateway meter.ID, hash [8]byte) string {
	return Topic{Site: site, Gateway: gateway, Kind: Catalogue, Hash: hash}.String()
}

// StateTopic is where a gateway's state is retained.
func StateTopic(site, gateway meter.ID) string {
	return Topic{Site: site, Gateway: gateway, Kind: State}.String()
}

// UpFilter matches everything that gateways send. An empty site or gateway
// stands for all of them.
func UpFilter(site, gateway meter.ID) string {
	if site == "" {
		site = "+"
	}
	if gateway == "" {
		gateway = "+"
	}
	return fmt.Sprintf("%s/%s/%s/up/#", prefix, site, gateway)
}

// ClientID is the client id of a gateway's uplink. It is the same for every
// connection, so that a broker that still holds a dead one takes it over.
func ClientID(site, gateway meter.ID) string {
	return fmt.Sprintf("gridgate-%s-%s", site, gateway)
}

// String gives the topic as it stands in a packet.
func (t Topic) String() string {
	head := fmt.Sprintf("%s/%s/%s/up/", prefix, t.Site, t.Gateway)
	switch t.Kind {
	case Readings:
		return head + "readings/" + t.Lane.String()
	case Catalogue:
		return head + "catalog/" + hex.EncodeToString(t.Hash[:])
	case State:
		return head + "state"
	}
	return head + t.Kind.String()
}

// ErrForeignTopic says that a topic is none of the contract's, or one of a
// kind that this version does not know. A subscriber skips it.
var ErrForeignTopic = errors.New("not a topic of this contract")

// ParseTopic takes a topic apart. Its error is ErrForeignTopic for topics that
// are not ours, and another one for ours with a bad part.
func ParseTopic(s string) (Topic, error) {
	rest, ours := strings.CutPrefix(s, prefix+"/")
	parts := strings.Split(rest, "/")
	if !ours || len(parts) < 4 || parts[2] != "up" {
		return Topic{}, fmt.Errorf("topic %q: %w", s, ErrForeignTopic)
	}
	site, serr := meter.ParseID(parts[0])
	gateway, gerr := meter.ParseID(parts[1])
	if err := errors.Join(serr, gerr); err != nil {
		return Topic{}, fmt.Errorf("topic %q: %w", s, err)
	}
	t := Topic{Site: site, Gateway: gateway}
	switch kind := parts[3]; {
	case kind == "readings" && len(parts) == 5:
		lane, err := meter.ParseLane(parts[4])
		if err != nil {
			return Topic{}, fmt.Errorf("topic %q: %w", s, err)
		}
		t.Kind, t.Lane = Readings, lane
	case kind == "catalog" && len(parts) == 5:
		if n, err := hex.Decode(t.Hash[:], []byte(parts[4][:min(len(parts[4]), 16)])); err != nil || n != 8 || len(parts[4]) != 16 ||
			parts[4] != strings.ToLower(parts[4]) {
			return Topic{}, fmt.Errorf("topic %q: want 16 lower-case hexadecimal digits after catalog/", s)
		}
		t.Kind = Catalogue
	case kind == "state" && len(parts) == 4:
		t.Kind = State
	default:
		return Topic{}, fmt.Errorf("topic %q: %w", s, ErrForeignTopic)
	}
	return t, nil
}
