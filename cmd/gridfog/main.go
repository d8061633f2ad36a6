// Command gridfog is the fog side's tool: it shows, decodes and serves what
// gateways send. One file a verb.
package main

import (
	"fmt"
	"os"

	"gridgate/internal/cli"
	"gridgate/internal/sys"
)

func main() {
	if err := sys.NoCoreDumps(); err != nil { // a crash would leave keys behind
		fmt.Fprintln(os.Stderr, "gridfog: core dumps stay possible:", err)
	}
	program().Main()
}

func program() cli.Program {
	return cli.Program{
		Name:    "gridfog",
		Summary: "takes what gridgate gateways send",
		Verbs: []cli.Verb{
			brokerVerb(), watchVerb(), decodeVerb(), fleetVerb(), bridgeVerb(), ingestVerb(),
			keygenVerb(), trustVerb(), signVerb(), pushVerb(), commandVerb(), tunnelVerb(), secretVerb(), firmwareVerb(),
		},
	}
}
