// Command gridgate is the edge agent of a smart-meter gateway: it polls the
// meters, keeps every reading until the fog has it, and hands it on in batches
// over MQTT. One file a verb.
package main

import "gridgate/internal/cli"

// version is set by the linker.
var version = "unreleased"

func main() { program().Main() }

func program() cli.Program {
	return cli.Program{
		Name:    "gridgate",
		Summary: "reads meters, keeps their readings and hands them to the fog",
		Verbs: []cli.Verb{
			runVerb(), checkVerb(), readVerb(), profileVerb(), objectsVerb(), scanVerb(), listenVerb(), countersVerb(), statusVerb(), bufferVerb(), versionVerb(),
		},
	}
}
