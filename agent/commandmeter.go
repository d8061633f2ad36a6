package agent

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"gridgate/agent/command"
	"gridgate/configs"
	"gridgate/internal/meter"
)

// meterServices gives what commands to meters need beside visits.
func (a *Agent) meterServices() command.MeterServices {
	return command.MeterServices{
		Keys: a.keys, KeyNames: a.keyNames, Find: a.meterWith,
		Changing: a.changingKeys,
		Images:   filepath.Join(a.orders.dir, "images"),
		Listen:   a.tunnels.listen,
		Send:     func(id string, part int, data []byte) { a.commands.send(id, part, data, func() {}) },
	}
}

// tunnels are those that are open: what comes for them passes by the commands.
type tunnels struct {
	mu   sync.Mutex
	open map[string]chan []byte
}

// maxPackets is how many packets of a tunnel wait for a slow line.
const maxPackets = 64

func (t *tunnels) listen(id string) (<-chan []byte, func()) {
	packets := make(chan []byte, maxPackets)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[string]chan []byte{}
	}
	t.open[id] = packets
	return packets, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.open, id)
	}
}

// take says whether what came is of a tunnel. It does not block.
func (t *tunnels) take(packet []byte) bool {
	id, ok := command.IsTunnel(packet)
	if !ok {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case t.open[id] <- slices.Clone(packet):
	default: // none is open, or it is full; the gap ends it
	}
	return true
}

// meterWith gives the meter that is configured with a serial number.
func (a *Agent) meterWith(serial string) (meter.ID, bool) {
	for _, m := range a.config().Meters {
		if m.Serial != "" && strings.EqualFold(m.Serial, serial) {
			return m.ID, true
		}
	}
	return "", false
}

// keyNames gives the names that a meter's keys have in the store of secrets: its
// address refers to them; the master key is in none.
func (a *Agent) keyNames(id meter.ID) (command.KeyNames, error) {
	m, ok := a.meterConfig(id)
	if !ok {
		return nil, fmt.Errorf("meter %s is not configured", id)
	}
	return keyNamesOf(m)
}

func keyNamesOf(m configs.Meter) (command.KeyNames, error) {
	names := command.UsualKeyNames(m.Serial)
	for kind, reference := range map[meter.KeyKind]string{meter.UnicastKey: m.Address.Security.EK.String(), meter.AuthenticationKey: m.Address.Security.AK.String()} {
		name, stored := strings.CutPrefix(reference, "secret:")
		switch {
		case stored:
			names[kind] = name
		case reference == "":
			delete(names, kind)
		default:
			return nil, fmt.Errorf("its key %v=%s is not in the store of secrets: only what is there can be changed (%v=secret:NAME)", kind, reference, kind)
		}
	}
	return names, nil
}

// nextKeys gives the keys that a meter may have instead of its own, since it was
// being given them when the agent was cut off, and what is done when it is known.
func (a *Agent) nextKeys(m configs.Meter) (map[meter.KeyKind]meter.Secret, func(next bool)) {
	if a.keys == nil || !m.Address.UsesKeys() {
		return nil, nil
	}
	names, err := keyNamesOf(m)
	if err != nil {
		return nil, nil // they are nowhere where others could stand beside them
	}
	keys, err := command.StagedKeys(a.keys, names)
	if err != nil {
		a.log.Error("the keys that a meter may have cannot be read", "meter", string(m.ID), "error", err)
	}
	return keys, func(next bool) {
		mu := a.changing.of(m.ID)
		if !mu.TryLock() {
			return // a command is at it, and settles it
		}
		defer mu.Unlock()
		if err := command.SettleKeys(a.keys, names, next); err != nil {
			a.log.Error("the keys that a meter has cannot be kept", "meter", string(m.ID), "new", next, "error", err)
			return
		}
		a.log.Info("it is known which keys a meter has", "meter", string(m.ID), "new", next)
	}
}
