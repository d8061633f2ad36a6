package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gridgate/configs"
	"gridgate/drivers/address"
	"gridgate/drivers/scan"
	"gridgate/internal/meter"
)

// fragment is the configuration that a scan writes.
type fragment struct {
	path  string
	force bool
	at    address.Bare
	base  *configs.Config // of the gateway; nil for none
}

// newFragment looks, before the scan, whether what it finds can be written.
func newFragment(path, config string, force bool, at address.Bare) (*fragment, error) {
	f := &fragment{path: path, force: force, at: at}
	if _, err := os.Lstat(path); err == nil && !force {
		return nil, fmt.Errorf("%s is there already: -force overwrites it", path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is no folder", filepath.Dir(path))
	}
	if config == "" {
		return f, nil
	}
	cfg, err := loadConfig(config)
	if err != nil {
		return nil, err
	}
	f.base = cfg
	return f, nil
}

// write writes the file: whole or not at all.
func (f *fragment) write(found []scan.Found) error {
	text, err := f.text(found)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(f.path), ".scan-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.WriteString(text)
	if err := errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close()); err != nil {
		return err
	}
	if f.force {
		return os.Rename(file.Name(), f.path)
	}
	// A file that appeared meanwhile stays.
	if err := os.Link(file.Name(), f.path); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: -force overwrites it", f.path)
	} else if err != nil {
		return err
	}
	return nil
}

// text makes a configuration that check takes as it is. Meters that cannot be
// read without somebody deciding something stand in comments.
func (f *fragment) text(found []scan.Found) (string, error) {
	var b strings.Builder
	site, gateway, broker := "site-1", "gateway-1", "tcp://127.0.0.1:1883"
	if f.base != nil {
		site, gateway, broker = string(f.base.Site), string(f.base.Gateway), f.base.Uplink.Broker
	}
	fmt.Fprintf(&b, "# Found on %s by gridgate scan.\nversion: 1\n", f.at.Line.Line)
	if f.base == nil {
		b.WriteString("# Of this gateway nothing was told: correct the next three.\n")
	}
	fmt.Fprintf(&b, "site: %s\ngateway: %s\nuplink: {broker: %s}\n", site, gateway, strconv.Quote(broker))
	var meters strings.Builder
	groups := map[string][]meter.Channel{}
	names := map[string]bool{}
	if f.base != nil {
		for _, m := range f.base.Meters {
			names[string(m.ID)] = true
		}
	}
	listed := 0
	for i := range found {
		ok, err := f.meter(&meters, &found[i], names, groups)
		if err != nil {
			return "", err
		}
		if ok {
			listed++
		}
	}
	if len(groups) > 0 {
		b.WriteString("groups:\n")
		for _, name := range slices.Sorted(keysOf(groups)) {
			fmt.Fprintf(&b, "  %s: {lane: instant, every: 15m, channels: [%s]}\n", name, channelList(groups[name]))
		}
	}
	if listed > 0 {
		b.WriteString("meters:\n")
	}
	if strings.Contains(meters.String(), "dlms+") {
		b.WriteString("  # DLMS meters are read as the public client may; others need client, auth and keys: see docs/technician.md.\n")
	}
	b.WriteString(meters.String())
	text := b.String()
	if _, err := configs.Parse(f.path, []byte(text)); err != nil {
		return "", fmt.Errorf("what was found cannot be written as a configuration: %w", err)
	}
	return text, nil
}

// meter writes one meter; listed says that it is not in a comment.
func (f *fragment) meter(b *strings.Builder, found *scan.Found, names map[string]bool, groups map[string][]meter.Channel) (listed bool, err error) {
	if m := f.configured(found); m != "" {
		fmt.Fprintf(b, "  # %s: meter %s of the configuration\n", found.Address(), m)
		return false, nil
	}
	if found.Protocol == scan.ModbusRTU || found.Protocol == scan.ModbusTCP || found.Protocol == scan.ModbusRTUOverTCP {
		if found.Model == "" {
			fmt.Fprintf(b, "  # %s %s: no register map fits; docs/modbus.md says how to write one\n", found.Protocol, found.Address())
			return false, nil
		}
	}
	id := nameOf(found, names)
	line := fmt.Sprintf("{id: %s, ", id)
	if serial := found.Serial; serial != "" && isPlain(serial) {
		line += fmt.Sprintf("serial: %s, ", strconv.Quote(serial))
	}
	if found.Model != "" {
		group, channels, err := groupOf(found.Model)
		if err != nil {
			return false, err
		}
		groups[group] = channels
		line += fmt.Sprintf("groups: [%s], ", group)
	} else {
		line += "groups: auto, "
	}
	line += fmt.Sprintf("url: %s}", strconv.Quote(foundAddress(f.at, found).String()))
	switch {
	case len(found.Or) > 0:
		delete(groups, found.Model)
		fmt.Fprintf(b, "  # Look at the plate: model %s or %s?\n  # - %s\n", found.Model, strings.Join(found.Or, " or "), line)
		return false, nil
	case found.Note != "":
		fmt.Fprintf(b, "  # %s\n", oneLine(found.Note))
	}
	fmt.Fprintf(b, "  - %s\n", line)
	return true, nil
}

// configured gives the meter of the gateway's configuration that it is, "" for
// none.
func (f *fragment) configured(found *scan.Found) string {
	if f.base == nil {
		return ""
	}
	a := foundAddress(f.at, found)
	for _, m := range f.base.Meters {
		o := m.Address
		same := o.Line == a.Line && o.Unit == a.Unit && o.Server == a.Server && o.Physical == a.Physical && o.Scheme == a.Scheme
		if same || found.Serial != "" && m.Serial == found.Serial {
			return string(m.ID)
		}
	}
	return ""
}

// nameOf gives a meter an id that nobody has: by its model and unit, or its serial
// number.
func nameOf(f *scan.Found, taken map[string]bool) string {
	name := "meter"
	switch {
	case f.Model != "":
		_, kind, _ := strings.Cut(f.Model, "-")
		name = fmt.Sprintf("%s-%d", kind, f.Unit)
	case f.Serial != "":
		name = f.Serial
	case f.Physical > 0:
		name = fmt.Sprintf("meter-%d", f.Physical)
	}
	name = strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, name), "-")
	name = cmp.Or(name[:min(len(name), 28)], "meter")
	id := name
	for n := 2; taken[id]; n++ {
		id = fmt.Sprintf("%s-%d", name, n)
	}
	taken[id] = true
	return id
}

// groupOf gives what is read of a model: energies, powers, voltages.
func groupOf(model string) (name string, channels []meter.Channel, err error) {
	m, err := configs.ModelIn(configs.DefaultModels, model)
	if err != nil {
		return "", nil, err
	}
	for _, r := range m.Registers {
		if slices.Contains([]string{"1-0:1.8.0", "1-0:2.8.0", "1-0:15.8.0", "1-0:1.7.0", "1-0:16.7.0", "1-0:32.7.0", "1-0:52.7.0", "1-0:72.7.0"}, r.Channel.Short()) {
			channels = append(channels, r.Channel)
		}
	}
	if len(channels) == 0 && len(m.Registers) > 0 {
		channels = append(channels, m.Registers[0].Channel)
	}
	return model[:min(len(model), 32)], channels, nil
}

func channelList(all []meter.Channel) string {
	texts := make([]string, len(all))
	for i, c := range all {
		texts[i] = c.Short()
	}
	return strings.Join(texts, ", ")
}

func keysOf(m map[string][]meter.Channel) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// isPlain says whether s may be a serial number in a configuration.
func isPlain(s string) bool {
	return len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) < 0
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
