package mqtt

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
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
	// Downwards.
	Acknowledgement  // down/ack/<lane>: how far the fog has stored a lane; retained
	ResendRequest    // down/resend/<lane>: numbers to be sent again; not retained
	CatalogueRequest // down/catalog: the newest catalogue is to be sent again; not retained
	// Signed documents, downwards, and what became of them.
	Order        // down/trust, down/config, down/firmware: retained; down/command: not
	ConfigReport // up/config: what runs, what is tried, what was refused and why; retained
	Result       // up/result/<id>: what came of a command
	Audit        // up/audit: an entry of the audit log
	// Firmware.
	FirmwareReport // up/firmware: what runs, what is fetched and tried, and what came of it; retained
	FirmwarePart   // _firmware/<hash>: a part of a file, or the list of its parts; retained
)

func (k Kind) String() string {
	switch k {
	case Readings:
		return "readings"
	case Catalogue:
		return "catalog"
	case State:
		return "state"
	case Acknowledgement:
		return "ack"
	case ResendRequest:
		return "resend"
	case CatalogueRequest:
		return "catalog request"
	case Order:
		return "order"
	case ConfigReport:
		return "config"
	case Result:
		return "result"
	case Audit:
		return "audit"
	case FirmwareReport:
		return "firmware"
	case FirmwarePart:
		return "firmware part"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Topic is a topic of the contract, taken apart.
//
//	gridgate/1/<site>/<gateway>/up/readings/<lane>
//	gridgate/1/<site>/<gateway>/up/catalog/<hash>   16 hexadecimal digits
//	gridgate/1/<site>/<gateway>/up/state
//	gridgate/1/<site>/<gateway>/down/ack/<lane>
//	gridgate/1/<site>/<gateway>/down/resend/<lane>
//	gridgate/1/<site>/<gateway>/down/catalog
//	gridgate/1/<site>/<gateway>/down/<trust|config|command|firmware>
//	gridgate/1/<site>/_group/<group>/down/<trust|config|command|firmware>
//	gridgate/1/<site>/<gateway>/up/config
//	gridgate/1/<site>/<gateway>/up/result/<id>
//	gridgate/1/<site>/<gateway>/up/audit
//	gridgate/1/<site>/<gateway>/up/firmware
//	gridgate/1/<site>/_firmware/<hash>                32 hexadecimal digits
type Topic struct {
	Site    meter.ID
	Gateway meter.ID // empty where there is a Group
	Group   meter.ID // of an Order to all its members
	Kind    Kind
	Lane    meter.Lane // of Readings, Acknowledgement and ResendRequest
	Hash    [8]byte    // of a Catalogue
	Order   string     // which Order: trust, config, command or firmware
	ID      meter.ID   // of the command that a Result is of
	Part    int        // of a Result that is too long for one message, from 1 on; 0: the result
	Sum     [16]byte   // of a FirmwarePart: what the SHA-256 of its payload begins with
}

// Orders are the names of what an Order topic carries.
func Orders() []string { return []string{"trust", "config", "command", "firmware"} }

// OrderTopic is where a gateway gets orders; where group is not empty, where all
// its members do.
func OrderTopic(site, gateway, group meter.ID, order string) string {
	return Topic{Site: site, Gateway: gateway, Group: group, Kind: Order, Order: order}.String()
}

// ConfigTopic is where a gateway says what configuration it has.
func ConfigTopic(site, gateway meter.ID) string {
	return Topic{Site: site, Gateway: gateway, Kind: ConfigReport}.String()
}

// ResultTopic is where a gateway says what came of a command.
func ResultTopic(site, gateway, id meter.ID) string { return PartTopic(site, gateway, id, 0) }

// PartTopic is where a gateway sends a part of what a result is too long for,
// from 1 on.
func PartTopic(site, gateway, id meter.ID, part int) string {
	return Topic{Site: site, Gateway: gateway, Kind: Result, ID: id, Part: part}.String()
}

// ResultFilter matches what a gateway says of commands. An empty site or gateway
// stands for all of them.
func ResultFilter(site, gateway meter.ID) string { return below(site, gateway) + "/up/result/#" }

// AuditTopic is where a gateway sends the entries of its audit log.
func AuditTopic(site, gateway meter.ID) string {
	return Topic{Site: site, Gateway: gateway, Kind: Audit}.String()
}

// FirmwareTopic is where a gateway says what firmware it has.
func FirmwareTopic(site, gateway meter.ID) string {
	return Topic{Site: site, Gateway: gateway, Kind: FirmwareReport}.String()
}

// FirmwareFilter matches what gateways say of their firmware. An empty site
// stands for all of them.
func FirmwareFilter(site meter.ID) string { return below(site, "") + "/up/firmware" }

// PartOfFirmware is where a part of firmware is retained for the gateways of a
// site: by what the SHA-256 of the message begins with.
func PartOfFirmware(site meter.ID, sum [16]byte) string {
	return Topic{Site: site, Kind: FirmwarePart, Sum: sum}.String()
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

// AckTopic is where the fog says how far it has stored a lane.
func AckTopic(site, gateway meter.ID, lane meter.Lane) string {
	return Topic{Site: site, Gateway: gateway, Kind: Acknowledgement, Lane: lane}.String()
}

// ResendTopic is where the fog asks for numbers of a lane.
func ResendTopic(site, gateway meter.ID, lane meter.Lane) string {
	return Topic{Site: site, Gateway: gateway, Kind: ResendRequest, Lane: lane}.String()
}

// CatalogueRequestTopic is where the fog asks for the newest catalogue.
func CatalogueRequestTopic(site, gateway meter.ID) string {
	return Topic{Site: site, Gateway: gateway, Kind: CatalogueRequest}.String()
}

// AckFilter matches what the fog says to gateways of how far it is. An empty
// site or gateway stands for all of them.
func AckFilter(site, gateway meter.ID) string {
	return below(site, gateway) + "/down/ack/+"
}

// ResendFilter matches what the fog asks for again, likewise.
func ResendFilter(site, gateway meter.ID) string {
	return below(site, gateway) + "/down/resend/+"
}

// UpFilter matches everything that gateways send. An empty site or gateway
// stands for all of them.
func UpFilter(site, gateway meter.ID) string {
	return below(site, gateway) + "/up/#"
}

// ConfigFilter matches what gateways say of their configurations. An empty site
// stands for all of them.
func ConfigFilter(site meter.ID) string { return below(site, "") + "/up/config" }

func below(site, gateway meter.ID) string {
	if site == "" {
		site = "+"
	}
	if gateway == "" {
		gateway = "+"
	}
	return fmt.Sprintf("%s/%s/%s", prefix, site, gateway)
}

// ClientID is the client id of a gateway's uplink. It is the same for every
// connection, so that a broker that still holds a dead one takes it over.
func ClientID(site, gateway meter.ID) string {
	return fmt.Sprintf("gridgate-%s-%s", site, gateway)
}

// String gives the topic as it stands in a packet.
func (t Topic) String() string {
	head := fmt.Sprintf("%s/%s/%s/", prefix, t.Site, t.Gateway)
	if t.Group != "" {
		head = fmt.Sprintf("%s/%s/%s/%s/", prefix, t.Site, groupLevel, t.Group)
	}
	switch t.Kind {
	case FirmwarePart:
		return fmt.Sprintf("%s/%s/%s/%x", prefix, t.Site, firmwareLevel, t.Sum)
	case Readings:
		return head + "up/readings/" + t.Lane.String()
	case Catalogue:
		return head + "up/catalog/" + hex.EncodeToString(t.Hash[:])
	case State:
		return head + "up/state"
	case Acknowledgement:
		return head + "down/ack/" + t.Lane.String()
	case ResendRequest:
		return head + "down/resend/" + t.Lane.String()
	case CatalogueRequest:
		return head + "down/catalog"
	case Order:
		return head + "down/" + t.Order
	case ConfigReport:
		return head + "up/config"
	case Result:
		if t.Part > 0 {
			return head + "up/result/" + string(t.ID) + "/" + strconv.Itoa(t.Part)
		}
		return head + "up/result/" + string(t.ID)
	case Audit:
		return head + "up/audit"
	case FirmwareReport:
		return head + "up/firmware"
	}
	return head + t.Kind.String()
}

// groupLevel and firmwareLevel stand in a topic where a gateway would, before a
// group and before the hash of a part. They are no ids.
const (
	groupLevel    = "_group"
	firmwareLevel = "_firmware"
)

// ErrForeignTopic says that a topic is none of the contract's, or one of a
// kind that this version does not know. A subscriber skips it.
var ErrForeignTopic = errors.New("not a topic of this contract")

// ParseTopic takes a topic apart. Its error is ErrForeignTopic for topics that
// are not ours, and another one for ours with a bad part.
func ParseTopic(s string) (Topic, error) {
	rest, ours := strings.CutPrefix(s, prefix+"/")
	parts := strings.Split(rest, "/")
	if ours && len(parts) == 3 && parts[1] == firmwareLevel {
		return parseFirmware(s, parts)
	}
	if !ours || len(parts) < 4 {
		return Topic{}, fmt.Errorf("topic %q: %w", s, ErrForeignTopic)
	}
	if parts[1] == groupLevel {
		return parseGroup(s, parts)
	}
	site, serr := meter.ParseID(parts[0])
	gateway, gerr := meter.ParseID(parts[1])
	if err := errors.Join(serr, gerr); err != nil {
		return Topic{}, fmt.Errorf("topic %q: %w", s, err)
	}
	t := Topic{Site: site, Gateway: gateway}
	kind := map[string]Kind{
		"up/readings": Readings, "up/catalog": Catalogue, "up/state": State,
		"down/ack": Acknowledgement, "down/resend": ResendRequest, "down/catalog": CatalogueRequest,
		"down/trust": Order, "down/config": Order, "down/command": Order, "down/firmware": Order,
		"up/config": ConfigReport, "up/result": Result, "up/audit": Audit, "up/firmware": FirmwareReport,
	}[parts[2]+"/"+parts[3]]
	switch {
	case (kind == Readings || kind == Acknowledgement || kind == ResendRequest) && len(parts) == 5:
		lane, err := meter.ParseLane(parts[4])
		if err != nil {
			return Topic{}, fmt.Errorf("topic %q: %w", s, err)
		}
		t.Kind, t.Lane = kind, lane
	case kind == Catalogue && len(parts) == 5:
		if n, err := hex.Decode(t.Hash[:], []byte(parts[4][:min(len(parts[4]), 16)])); err != nil || n != 8 || len(parts[4]) != 16 ||
			parts[4] != strings.ToLower(parts[4]) {
			return Topic{}, fmt.Errorf("topic %q: want 16 lower-case hexadecimal digits after catalog/", s)
		}
		t.Kind = Catalogue
	case (kind == State || kind == CatalogueRequest || kind == ConfigReport || kind == Audit || kind == FirmwareReport) && len(parts) == 4:
		t.Kind = kind
	case kind == Order && len(parts) == 4:
		t.Kind, t.Order = kind, parts[3]
	case kind == Result && (len(parts) == 5 || len(parts) == 6):
		id, err := meter.ParseID(parts[4])
		if err != nil {
			return Topic{}, fmt.Errorf("topic %q: %w", s, err)
		}
		t.Kind, t.ID = kind, id
		if len(parts) == 6 {
			if t.Part, err = strconv.Atoi(parts[5]); err != nil || t.Part < 1 || strconv.Itoa(t.Part) != parts[5] {
				return Topic{}, fmt.Errorf("topic %q: want a number from 1 on after the id", s)
			}
		}
	default:
		return Topic{}, fmt.Errorf("topic %q: %w", s, ErrForeignTopic)
	}
	return t, nil
}

// parseFirmware takes the topic of a part apart.
func parseFirmware(s string, parts []string) (Topic, error) {
	site, err := meter.ParseID(parts[0])
	if err != nil {
		return Topic{}, fmt.Errorf("topic %q: %w", s, err)
	}
	t := Topic{Site: site, Kind: FirmwarePart}
	if sum, err := hex.DecodeString(parts[2]); err != nil || copy(t.Sum[:], sum) != len(sum) || len(sum) != len(t.Sum) || parts[2] != strings.ToLower(parts[2]) {
		return Topic{}, fmt.Errorf("topic %q: want 32 lower-case hexadecimal digits after %s/", s, firmwareLevel)
	}
	return t, nil
}

// parseGroup takes a topic of a group apart.
func parseGroup(s string, parts []string) (Topic, error) {
	if len(parts) != 5 || parts[3] != "down" || !slices.Contains(Orders(), parts[4]) {
		return Topic{}, fmt.Errorf("topic %q: %w", s, ErrForeignTopic)
	}
	site, serr := meter.ParseID(parts[0])
	group, gerr := meter.ParseID(parts[2])
	if err := errors.Join(serr, gerr); err != nil {
		return Topic{}, fmt.Errorf("topic %q: %w", s, err)
	}
	return Topic{Site: site, Group: group, Kind: Order, Order: parts[4]}, nil
}
