package agent

import (
	"fmt"
	"strings"
	"sync"

	"gridgate/configs"
	"gridgate/internal/meter"
)

// changing are the meters whose keys are being changed or settled. New keys that a
// command keeps beside the old ones, before their meter is told, are not forgotten
// by a visit meanwhile that finds the old ones.
type changing struct {
	mu   sync.Mutex
	keys map[meter.ID]*sync.Mutex
}

// of gives what is held while a meter's keys are changed or settled.
func (c *changing) of(id meter.ID) *sync.Mutex {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		c.keys = map[meter.ID]*sync.Mutex{}
	}
	if c.keys[id] == nil {
		c.keys[id] = &sync.Mutex{}
	}
	return c.keys[id]
}

// changingKeys has a meter's keys for a command until end is called. Who settles
// them holds them only while the store is written.
func (a *Agent) changingKeys(id meter.ID) (end func(), err error) {
	if err := a.mayChangeKeys(id); err != nil {
		return nil, err
	}
	mu := a.changing.of(id)
	mu.Lock()
	return mu.Unlock, nil
}

// mayChangeKeys refuses where the secrets of a meter are not its own: another
// meter with them would not be read any more.
func (a *Agent) mayChangeKeys(id meter.ID) error {
	cfg := a.config()
	m, ok := cfg.Meter(id)
	if !ok {
		return nil
	}
	names, err := keyNamesOf(m)
	if err != nil {
		return err
	}
	for _, name := range names {
		if a.vault.OnTrial(name) {
			return fmt.Errorf("the secret %s is on trial with a configuration: order it anew when that has ended", name)
		}
	}
	return keysAreOwn(cfg.Meters, m)
}

func keysAreOwn(all []configs.Meter, m configs.Meter) error {
	own := map[string]bool{}
	for _, s := range []string{m.Address.Security.EK.String(), m.Address.Security.AK.String()} {
		own[s] = strings.HasPrefix(s, "secret:")
	}
	for _, other := range all {
		if other.ID == m.ID || other.Serial == m.Serial { // two associations of one meter share its keys
			continue
		}
		for _, s := range other.Address.Secrets() {
			if own[s.Secret.String()] {
				return fmt.Errorf("meter %s has %s too: give each meter a secret of its own first, or that one is not read any more", other.ID, s.Secret.String())
			}
		}
	}
	return nil
}
