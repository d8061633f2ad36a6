package main

import (
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "gateways" { // the test's own child
		main()
		return
	}
	os.Exit(m.Run())
}

// Every value that the meters showed is in the database once, though the broker,
// or a node of it, and a member of gridfog ingest were killed on the way. Every
// second gateway waits for the fog's confirmation, the others for the broker's.
func TestOnce(t *testing.T) {
	for _, kind := range []string{"nats", "mosquitto", "rabbitmq"} {
		t.Run(kind, func(t *testing.T) {
			p := plan{
				Root: root, Broker: kind, Confirm: "mixed", Members: 2, Faults: true, Log: t.Output(),
				Fleet: fleet{Gateways: 10, Meters: 20, Quarters: 4, Sites: 3, Start: time.Now().Truncate(15 * time.Minute).Add(-75 * time.Minute)},
			}
			o, err := p.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			report(t.Output(), []outcome{o})
		})
	}
}
