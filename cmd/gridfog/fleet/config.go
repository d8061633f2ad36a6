package fleet

import (
	"encoding/json"
	"errors"
	"fmt"

	"gridgate/internal/mqtt"
)

// maxConfig bounds an up/config, in bytes, and maxLayers the layers of it that
// are kept.
const (
	maxConfig = 64 << 10
	maxLayers = 32
)

// Configuration is what a gateway says of its orders on up/config.
type Configuration struct {
	Trust  uint64     `json:"trust"`  // version of the trust document, 0 without one
	Layers []Document `json:"layers"` // that run; none without signed ones
	Trial  *Document  `json:"trial,omitempty"`
	Last   *Document  `json:"last,omitempty"`
}

// Document is one of them. Step is of a trial, Outcome of what came to an end:
// kept, reverted, refused or broken.
type Document struct {
	Kind    string `json:"kind,omitempty"`
	Target  string `json:"target,omitempty"`
	Version uint64 `json:"version,omitempty"`
	Step    string `json:"step,omitempty"`
	Outcome string `json:"outcome,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// parseConfig reads an up/config. What is not known is skipped.
func parseConfig(b []byte) (*Configuration, error) {
	if len(b) > maxConfig {
		return nil, fmt.Errorf("configuration: %d bytes, longer than %d", len(b), maxConfig)
	}
	var told struct {
		Trust       uint64
		Running     struct{ Layers []Document }
		Trial, Last *Document
	}
	if err := json.Unmarshal(b, &told); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(told.Running.Layers) > maxLayers {
		return nil, fmt.Errorf("configuration: %d layers, more than %d", len(told.Running.Layers), maxLayers)
	}
	c := &Configuration{Trust: told.Trust, Layers: append([]Document{}, told.Running.Layers...), Trial: told.Trial, Last: told.Last}
	for _, d := range append([]Document{orNone(c.Trial), orNone(c.Last)}, c.Layers...) {
		for _, text := range []string{d.Kind, d.Target, d.Step, d.Outcome} {
			if len(text) > 200 {
				return nil, errors.New("configuration: a text in it is longer than 200 bytes")
			}
		}
		if len(d.Reason) > 4000 {
			return nil, errors.New("configuration: the reason is longer than 4000 bytes")
		}
	}
	return c, nil
}

func orNone(d *Document) Document {
	if d == nil {
		return Document{}
	}
	return *d
}

// Config takes a message of up/config; an empty payload takes what it said back.
// It puts nobody on the list: that of a gateway that is gone for good is retained.
func (f *Fleet) Config(topic mqtt.Topic, payload []byte) error {
	at := place{string(topic.Site), string(topic.Gateway)}
	if len(payload) == 0 {
		delete(f.orders, at)
		return nil
	}
	c, err := parseConfig(payload)
	if err != nil {
		return err
	}
	if f.orders[at] == nil && len(f.orders) >= maxGateways {
		return ErrTooMany
	}
	f.orders[at] = c
	return nil
}
