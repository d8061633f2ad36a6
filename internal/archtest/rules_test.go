package archtest

// drawing is the graph of the project: a line a package, with the packages of
// the project that its code (not its tests) may import. Imports point down:
//
//	cmd > agent > configs > {drivers, buffer, agent/*} > dlms > internal
//
// A path that ends in /... means everything below it, and itself.
const drawing = `
cmd/gridgate:        agent agent/audit agent/bundle agent/command agent/doctor agent/order agent/status agent/update agent/validate agent/vault buffer buffer/state configs dlms/security drivers drivers/address drivers/cosem drivers/line drivers/modbus drivers/plc drivers/scan drivers/sniff internal/cli internal/meter internal/qrcode internal/secret internal/sys internal/sys/zone
cmd/gridfog:         agent/batch agent/command agent/order agent/update agent/vault buffer cmd/gridfog/bridge cmd/gridfog/fleet cmd/gridfog/ingest cmd/gridfog/track configs internal/backoff internal/cli internal/meter internal/mqtt internal/secret internal/sys
cmd/gridfog/bridge:  agent/batch cmd/gridfog/track internal/backoff internal/meter internal/mqtt internal/wire
cmd/gridfog/fleet:   agent/batch internal/meter internal/mqtt
cmd/gridfog/track:   agent/batch internal/meter internal/mqtt
cmd/gridfog/ingest:  agent/batch internal/backoff internal/meter internal/mqtt
cmd/gridfog/pgtest:  internal/proctest
cmd/metersim:        configs dlms/... drivers/drivertest drivers/line drivers/modbus internal/cli internal/meter

scripts/cluster:     agent/intake agent/uplink agent/validate buffer internal/meter internal/mqtt
scripts/packages:
scripts/small/binary:
scripts/small/regexp:
scripts/image:       scripts/image/fat
scripts/image/init:  scripts/image/fat scripts/image/ppp
scripts/image/fat:
scripts/image/imagetest:
scripts/image/ppp:   agent/modem

agent:               agent/... buffer buffer/state configs dlms/security drivers drivers/address drivers/cosem drivers/line drivers/modbus drivers/plc internal/backoff internal/meter internal/mqtt internal/secret internal/sys internal/sortby
configs:             dlms dlms/obis drivers/address drivers/cosem drivers/modbus internal/meter internal/sys/zone internal/sortby

agent/poll:          internal/backoff internal/meter internal/sortby
agent/intake:        internal/meter internal/sortby
agent/validate:      internal/meter internal/sortby
agent/batch:         internal/column internal/meter internal/wire
agent/uplink:        agent/batch internal/backoff internal/meter internal/mqtt internal/sortby
agent/status:        dlms/security internal/meter
agent/order:         internal/meter
agent/trial:         internal/sys internal/sortby
agent/command:       agent/order internal/meter internal/sys
agent/audit:         internal/sys
agent/update:        agent/order internal/backoff internal/sys
agent/vault:         internal/secret internal/sys
agent/modem:
agent/bundle:        internal/secret
agent/doctor:        agent/bundle agent/modem agent/status configs drivers drivers/address drivers/line internal/mqtt internal/sys internal/secret
agent/timesync:      internal/meter internal/sys
agent/web:
agent/web/page:
agent/timesync/timetest: agent/timesync internal/proctest internal/sys

buffer:              dlms/obis internal/column internal/meter internal/sys internal/wire internal/sortby
buffer/state:        dlms/security internal/meter internal/sys internal/wire
buffer/buffertest:   buffer internal/meter

drivers:             dlms dlms/obis dlms/security drivers/address drivers/cosem drivers/iec21 drivers/line drivers/modbus drivers/plc internal/meter internal/secret
drivers/address:     dlms/obis internal/secret
drivers/line:        internal/meter internal/sys
drivers/cosem:       dlms dlms/axdr dlms/hdlc dlms/modee dlms/obis dlms/security dlms/wrapper drivers/line internal/meter internal/sortby
drivers/iec21:       dlms dlms/modee dlms/obis drivers/line internal/meter internal/sortby
drivers/modbus:      drivers/line internal/meter internal/sortby
drivers/plc:         dlms/gateway dlms/wrapper drivers/line internal/meter internal/sortby
drivers/scan:        dlms/hdlc dlms/modee drivers/cosem drivers/iec21 drivers/line drivers/modbus internal/meter internal/sortby
drivers/sniff:       dlms dlms/axdr dlms/hdlc dlms/modee dlms/obis
drivers/drivertest:  drivers/line

dlms:                dlms/axdr dlms/obis dlms/security
dlms/axdr:           dlms/obis
dlms/security:       dlms/axdr
dlms/obis:
dlms/wrapper:
dlms/hdlc:
dlms/modee:
dlms/gateway:
dlms/llc:
dlms/dlmstest:       dlms dlms/axdr dlms/obis dlms/security dlms/wrapper

internal/meter:      dlms/obis internal/sortby
internal/wire:
internal/column:     internal/meter internal/wire
internal/column/columntest: internal/meter
internal/backoff:
internal/sortby:
internal/sys:
internal/sys/zone:
internal/qrcode:
internal/secret:
internal/cli:
internal/mqtt:       internal/backoff internal/meter internal/secret
internal/mqtt/mqtttest: internal/proctest
internal/linktest:
internal/proctest:
internal/cuttest:
internal/archtest:
`

// stages exchange the vocabulary and never import one another, whatever the
// drawing says: a path stands for itself and everything below it.
func stages() []string {
	return []string{
		"drivers", "buffer", "agent/poll", "agent/intake", "agent/validate",
		"agent/batch", "agent/uplink", "agent/status", "agent/order", "agent/trial", "agent/audit", "agent/timesync", "agent/vault", "agent/update",
		"agent/batch", "agent/uplink", "agent/status", "agent/order", "agent/trial", "agent/audit", "agent/timesync", "agent/command",
		"agent/batch", "agent/uplink", "agent/status", "agent/order", "agent/trial", "agent/audit", "agent/timesync", "agent/modem",
		"agent/batch", "agent/uplink", "agent/status", "agent/order", "agent/trial", "agent/audit", "agent/timesync", "agent/web",
	}
}

// betweenStages are the edges between stages that there are all the same.
func betweenStages() map[edge]string {
	return map[edge]string{
		{"agent/uplink", "agent/batch"}:  "what is sent is a batch",
		{"agent/command", "agent/order"}: "a command is a document",
		{"agent/update", "agent/order"}:  "what firmware is made of stands in a document",
	}
}

// layers are the heights of the tree, the highest first. Not even a test looks
// up.
func layers() [][]string {
	return [][]string{
		{"scripts"},
		{"cmd"},
		{"agent"},
		{"configs"},
		stages(),
		{"dlms"},
		{"internal", "dlms/obis"},
	}
}

// owners says which packages may import a module from elsewhere; none means
// tests only. In tests every module of this list may be used.
func owners() map[string][]string {
	return map[string][]string{
		"github.com/eclipse/paho.mqtt.golang": {"internal/mqtt", "internal/mqtt/mqtttest"},
		"go.etcd.io/bbolt":                    {"buffer", "buffer/state", "buffer/buffertest"},
		"github.com/goburrow/modbus":          {"drivers/modbus"},
		"go.bug.st/serial":                    {"drivers/line"},
		"go.yaml.in/yaml/v4":                  {"configs", "agent/order"},
		"aead.dev/minisign":                   {"agent/order", "cmd/gridfog"},
		"filippo.io/age":                      {"agent/vault"},
		"rsc.io/qr":                           {"internal/qrcode"},
		"github.com/beevik/ntp":               {"agent/timesync"},
		"github.com/beevik/nts":               {"agent/timesync"},
		"github.com/mochi-mqtt/server/v2":     {"cmd/gridfog"},
		"github.com/jackc/pgx/v5":             {"cmd/gridfog/fleet", "cmd/gridfog/ingest", "cmd/gridfog/pgtest", "scripts/cluster"},
		"golang.org/x/sync":                   {"agent", "cmd/gridgate", "cmd/gridfog", "cmd/metersim", "scripts/cluster"},
		"github.com/goreleaser/nfpm/v2":       {"scripts/packages"},
		"github.com/insomniacslk/dhcp":        {"scripts/image/init"},
		"github.com/xi2/xz":                   {"agent/update"},
		"github.com/vishvananda/netlink":      {"scripts/image/init", "scripts/image/ppp"},
		"golang.org/x/sys":                    {"scripts/image/fat", "scripts/image/init", "scripts/image/ppp", "cmd/gridfog", "cmd/metersim", "drivers/line", "drivers/drivertest", "internal/sys", "buffer", "buffer/state"},
		"google.golang.org/protobuf":          {},
		"github.com/google/go-cmp":            {},
		"github.com/hanwen/go-fuse/v2":        {},
		"github.com/secure-io/siv-go":         {},
		"github.com/rogpeppe/go-internal":     {},
		"go.uber.org/goleak":                  {},
		"pgregory.net/rapid":                  {},
	}
}

// forbidden says which packages of the standard library a package and all
// below it do without, and why.
func forbidden() []ban {
	return []ban{
		{"dlms", []string{"log", "log/slog", "net", "os", "reflect", "unsafe"}, "the client is a pure protocol: its caller has the line, the clock and the log"},
		{"agent/batch", []string{"log/slog", "net", "os", "reflect", "unsafe"}, "fog developers import it"},
		{"agent/validate", []string{"log/slog", "net", "os"}, "it is pure"},
		{"agent/order", []string{"log/slog", "net", "os"}, "it is pure: it reads orders and carries none out"},
		{"drivers/address", []string{"net", "os"}, "it is pure: it looks nothing up"},
		{"internal/meter", []string{"log/slog", "net", "os", "reflect"}, "the vocabulary is values only"},
		{"internal/column", []string{"log/slog", "net", "os", "reflect", "unsafe"}, "it is a codec"},
		{"internal/wire", []string{"log/slog", "net", "os", "reflect", "unsafe"}, "it is a codec"},
	}
}

// notInFirmware are the packages that no package of ours in cmd/gridgate
// imports: they are large, slow, or do what an agent has no business with.
func notInFirmware() []string {
	return []string{
		"encoding/gob", "expvar", "html/template", "log", "net/http", "os/exec", "plugin", "reflect",
		"regexp", "testing", "text/template", "unsafe",
	}
}

// inFirmwareAllTheSame are the exceptions to notInFirmware.
func inFirmwareAllTheSame() map[edge]string {
	return map[edge]string{
		{"agent/web", "net/http"}:    "it is the local page and its API",
		{"agent/update", "net/http"}: "it reads answers of servers that have firmware; its client is not linked",
		{"drivers/line", "unsafe"}:   "an ioctl of the kernel that no package has takes a structure",
		{"internal/sys", "unsafe"}:   "likewise: GPIO lines",
	}
}

// notLinked must not be reachable from cmd/gridgate at all, through modules
// from elsewhere neither. A path stands for itself and everything below it.
func notLinked() []string {
	return []string{
		"github.com/mochi-mqtt/server/v2", "github.com/jackc/pgx/v5", "google.golang.org/protobuf", "github.com/google/go-cmp",
		"testing", "net/http/pprof", "expvar", "html/template", "text/template",
		module + "/cmd/gridfog", module + "/cmd/metersim",
	}
}

// mayUseTestPackages are the commands whose business is to play a meter.
func mayUseTestPackages() []string { return []string{"cmd/metersim"} }

// maxLines bounds a file that was written by hand.
const maxLines = 500
