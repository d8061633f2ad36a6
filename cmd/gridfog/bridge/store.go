package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gridgate/agent/batch"
	"gridgate/internal/meter"
)

// Store keeps over a restart what hosts rely on: the bdSeq of each node, which
// must go on, and its metrics with their aliases, so that births are whole
// before every meter has been heard again. Values are not kept. It is a folder
// with a file a node, <site>/<gateway>.json; the zero value keeps nothing.
type Store struct{ Dir string }

type storedNode struct {
	BdSeq   uint8          `json:"bdSeq"`
	Alias   uint64         `json:"alias"` // the highest that was given
	Devices []storedDevice `json:"devices"`
}

type storedDevice struct {
	Meter   string         `json:"meter"`
	Serial  string         `json:"serial,omitempty"`
	Since   int64          `json:"since,omitempty"`
	Alias   uint64         `json:"alias"`
	Metrics []storedMetric `json:"metrics"`
}

type storedMetric struct {
	Lane    string   `json:"lane"`
	Period  uint32   `json:"period,omitempty"`
	Channel string   `json:"channel"`
	Alias   uint64   `json:"alias"`
	Type    DataType `json:"type"`
	Typed   bool     `json:"typed"`
	Unit    uint8    `json:"unit"`
}

func (s Store) path(n *Node) string { return filepath.Join(s.Dir, n.Site, n.Gateway+".json") }

// Load brings back what Save kept of n, which must be new. A file that cannot
// be read is an error, and n is as new.
func (s Store) Load(n *Node) error {
	if s.Dir == "" {
		return nil
	}
	b, err := os.ReadFile(s.path(n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	var stored storedNode
	if err := json.Unmarshal(b, &stored); err == nil {
		err = stored.restore(n)
		if err == nil {
			return nil
		}
	}
	*n = *NewNode(n.Site, n.Gateway, n.options)
	return fmt.Errorf("state: %s is damaged: its aliases and its bdSeq begin anew", s.path(n))
}

func (stored *storedNode) restore(n *Node) error {
	n.bdSeq, n.connected, n.alias = stored.BdSeq, true, max(stored.Alias, softwareAlias)
	seen := map[uint64]bool{softwareAlias: true}
	claim := func(alias uint64) error {
		if alias == 0 || alias > n.alias || seen[alias] {
			return fmt.Errorf("alias %d", alias)
		}
		seen[alias] = true
		return nil
	}
	for _, sd := range stored.Devices {
		id, err := meter.ParseID(sd.Meter)
		if err == nil {
			err = claim(sd.Alias)
		}
		if err != nil {
			return err
		}
		d := &device{id: id, serial: sd.Serial, since: sd.Since, alias: sd.Alias, metrics: map[quantity]*metric{}}
		n.devices[id] = d
		for _, sm := range sd.Metrics {
			lane, err := meter.ParseLane(sm.Lane)
			if err == nil {
				err = claim(sm.Alias)
			}
			if err == nil && !sm.Type.sent() {
				err = fmt.Errorf("type %d", sm.Type)
			}
			if err != nil {
				return err
			}
			current := batch.Row{Lane: lane, Period: sm.Period, Channel: batch.Channel(sm.Channel)}
			d.metrics[quantityOf(&current)] = &metric{
				name: rowName(&current), alias: sm.Alias, kind: sm.Type, typed: sm.Typed, unit: batch.Unit(sm.Unit), current: current,
			}
		}
	}
	return nil
}

// sent says whether t is a type of metrics that is sent.
func (t DataType) sent() bool {
	switch t {
	case TypeInt64, TypeUInt64, TypeFloat, TypeDouble, TypeBoolean, TypeString, TypeBytes:
		return true
	case TypeInt32:
	}
	return false
}

// Save keeps n when something worth keeping has changed. It is on the disk when
// Save returns.
func (s Store) Save(n *Node) error {
	if s.Dir == "" || !n.dirty {
		return nil
	}
	stored := storedNode{BdSeq: n.bdSeq, Alias: n.alias, Devices: []storedDevice{}}
	for _, d := range n.sorted() {
		sd := storedDevice{Meter: string(d.id), Serial: d.serial, Since: d.since, Alias: d.alias, Metrics: []storedMetric{}}
		for q, m := range d.metrics {
			sd.Metrics = append(sd.Metrics, storedMetric{q.lane.String(), q.period, string(q.channel), m.alias, m.kind, m.typed, uint8(m.unit)})
		}
		stored.Devices = append(stored.Devices, sd)
	}
	b, err := json.Marshal(stored)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := replace(s.path(n), append(b, '\n')); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	n.dirty, n.kept = false, 1+int(n.bdSeq)
	return nil
}

// replace writes a file so that after a crash it is the old or the new one.
func replace(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
