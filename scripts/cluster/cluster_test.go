package main

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "gateways" { // the test's own child
		main()
		return
	}
	os.Exit(m.Run())
}
