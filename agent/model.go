package agent

import (
	"context"

	"gridgate/agent/poll"
	"gridgate/configs"
	"gridgate/drivers/cosem"
	"gridgate/internal/meter"
)

// groupOf gives a group as the poller has it.
func groupOf(g configs.Group) poll.Group {
	return poll.Group{
		Name: string(g.Name), Lane: g.Lane, Every: g.Every, Align: g.Align,
		Channels: g.Channels, Profile: g.Profile, Back: g.Back, Clear: g.Clear,
	}
}

// modelOf gives what is known of the model of a DLMS meter.
func modelOf(cfg *configs.Config, m configs.Meter) (*cosem.Model, error) {
	model, err := cfg.DLMSModel(m.Address.Model)
	if err != nil {
		return nil, err
	}
	return &model.Model, nil
}

// fromModel tells the poller what the model of a DLMS meter names, and how a
// meter that has no groups is asked what it has.
func (a *Agent) fromModel(cfg *configs.Config, m configs.Meter, v meter.Visitor, pm *poll.Meter) {
	if !m.Address.Scheme.IsDLMS() {
		return
	}
	if model, err := modelOf(cfg, m); err == nil {
		pm.EventOf = model.Events.Bit
	}
	if d, ok := v.(discoverer); ok && m.Auto {
		pm.Discover = func(ctx context.Context) ([]poll.Group, error) { return discover(ctx, d) }
	}
}

type discoverer interface {
	Discover(ctx context.Context) ([]cosem.Found, error)
}

func discover(ctx context.Context, d discoverer) ([]poll.Group, error) {
	found, err := d.Discover(ctx)
	groups := make([]poll.Group, len(found))
	for i, f := range found {
		groups[i] = poll.Group{Name: f.Name, Lane: f.Lane, Every: f.Every, Channels: f.Channels, Profile: f.Profile}
	}
	return groups, err
}
