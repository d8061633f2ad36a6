package mqtt_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Every goroutine of a connection, the library's included, has ended when Done
// is closed, but for the one that closes it; goleak waits for that one.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
