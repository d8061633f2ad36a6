package bridge

import (
	"encoding/json"
	"errors"
	"fmt"

	"gridgate/internal/wire"
)

// rebirthName is the metric that a host writes true to when it wants births
// (Sparkplug 3.0, 5.9 and 6.4.18).
const rebirthName = "Node Control/Rebirth"

// maxMetrics bounds the metrics of a command; a host sends one.
const maxMetrics = 1000

// asksForRebirth says whether an NCMD payload has the metric Node
// Control/Rebirth with the value true. Other metrics are passed over: there is
// nothing else to command.
func asksForRebirth(payload []byte) (bool, error) {
	asks := false
	metrics := 0
	for rest := payload; len(rest) > 0; {
		f, after, err := wire.Next(rest)
		if err != nil {
			return false, err
		}
		rest = after
		if f.Num != 2 || f.Type != wire.Bytes {
			continue
		}
		if metrics++; metrics > maxMetrics {
			return false, fmt.Errorf("more than %d metrics", maxMetrics)
		}
		yes, err := isRebirth(f.Data)
		if err != nil {
			return false, fmt.Errorf("metric %d: %w", metrics, err)
		}
		asks = asks || yes
	}
	return asks, nil
}

func isRebirth(metric []byte) (bool, error) {
	name, value := "", false
	for rest := metric; len(rest) > 0; {
		f, after, err := wire.Next(rest)
		if err != nil {
			return false, err
		}
		rest = after
		switch {
		case f.Num == 1 && f.Type == wire.Bytes:
			name = string(f.Data[:min(len(f.Data), len(rebirthName)+1)])
		case f.Num == 14 && f.Type == wire.Varint:
			value = f.Value != 0
		}
	}
	return name == rebirthName && value, nil
}

// hostState is what a host application says of itself on spBv1.0/STATE/<id>,
// retained (Sparkplug 3.0, 6.4.24).
type hostState struct {
	Online    bool
	Timestamp int64 // milliseconds since 1970, when it connected
}

func parseHostState(payload []byte) (hostState, error) {
	var s struct {
		Online    *bool
		Timestamp *json.Number
	}
	if err := json.Unmarshal(payload, &s); err != nil {
		return hostState{}, fmt.Errorf("state of the host: %w", err)
	}
	if s.Online == nil || s.Timestamp == nil {
		return hostState{}, errors.New(`state of the host: want {"online":…,"timestamp":…}`)
	}
	n, err := s.Timestamp.Int64()
	if err != nil {
		return hostState{}, fmt.Errorf("state of the host: timestamp: %w", err)
	}
	return hostState{*s.Online, n}, nil
}
