// Command gridgate is the edge agent of a smart-meter gateway: it polls the
// meters, keeps every reading until the fog has it, and hands it on in batches
// over MQTT. One file a verb.
package main

import (
	"fmt"
	"os"

	"gridgate/buffer"
	"gridgate/internal/cli"
	"gridgate/internal/sys"
)

// version is set by the linker.
var version = "unreleased"

func main() {
	if err := sys.NoCoreDumps(); err != nil { // a crash would leave secrets behind
		fmt.Fprintln(os.Stderr, "gridgate: core dumps stay possible:", err)
	}
	// No verb for people: the agent starts itself a second time to look at a
	// file that may be damaged.
	if len(os.Args) == 3 && os.Args[1] == buffer.ChildVerb {
		os.Exit(buffer.CheckChild(os.Args[2], os.Stderr)) //nolint:forbidigo // its codes are a matter between the two processes
	}
	program().Main()
}

func program() cli.Program {
	return cli.Program{
		Name:    "gridgate",
		Summary: "reads meters, keeps their readings and hands them to the fog",
		Verbs: []cli.Verb{
			runVerb(), checkVerb(), doctorVerb(), readVerb(), profileVerb(), objectsVerb(), scanVerb(), sniffVerb(), listenVerb(), countersVerb(), statusVerb(), clockVerb(), bufferVerb(), configVerb(), commandVerb(), updateVerb(), auditVerb(), secretVerb(), provisionVerb(), tokenVerb(), completionVerb(), manVerb(), versionVerb(),
		},
	}
}
