package command

// meterActions gives the actions that need a meter's protocol.
func meterActions() []Action {
	return nil
}

// MeterServices is what the actions on meters need of the conductor beside
// Job.Visit, as functions; package agent fills it in (agent/commandmeter.go).
type MeterServices struct{}
