package command

import "gridgate/agent/order"

// Check reads what a command orders without a gateway: for those who make
// commands. It gives the role whose keys have to sign, and how many at least.
func Check(d *order.Document) (role order.Role, keys int, err error) {
	e := &Engine{actions: append(gatewayActions(), meterActions()...)}
	e.cfg.Meters = func() []Meter { return nil }
	p, err := e.readHead(d)
	if err != nil {
		return "", 0, err
	}
	keys = 1
	if n := len(p.named); p.action.Two || p.action.AfterCut != Repeat && n > freely {
		keys = 2
	}
	return p.action.Role, keys, nil
}

// Names gives the actions that there are.
func Names() (all []string) {
	for _, a := range append(gatewayActions(), meterActions()...) {
		all = append(all, a.Name)
	}
	return all
}

// Named gives the meters that a command names, as it names them.
func Named(d *order.Document) (action string, meters []string, err error) {
	var p payload
	_, err = d.DecodeCommand(&p)
	return p.Action, p.Meters, err
}
