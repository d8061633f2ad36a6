// Command metersim is meters that are not there: it answers on TCP and UDP ports and
// pseudo-terminals as real ones do, with registers that move with time, and
// with faults when asked.
package main

import "gridgate/internal/cli"

func main() {
	cli.Program{
		Name:    "metersim",
		Summary: "simulated meters on TCP, UDP and pseudo-terminals, and a modem",
		Verbs:   []cli.Verb{dlmsVerb(), iec21Verb(), modbusVerb(), modemVerb(), plcVerb(), replayVerb()},
	}.Main()
}
