package agent

import "gridgate/agent/command"

// meterServices gives what commands to meters need beside visits.
func (a *Agent) meterServices() command.MeterServices { return command.MeterServices{} }
