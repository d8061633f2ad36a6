package command

import (
	"time"

	"gridgate/agent/order"
	"gridgate/internal/meter"
)

// meterActions gives the actions that need a meter's protocol.
func meterActions() []Action {
	const switching = 30 * time.Minute
	return []Action{
		{Name: "disconnect", Role: order.Control, AfterCut: Never, Targets: Some, Switches: true, Disconnects: true, Most: switching, New: newDisconnect},
		{Name: "connect", Role: order.Control, AfterCut: Never, Targets: Some, Switches: true, Most: switching, New: newConnect},
		{Name: "limit", Role: order.Control, AfterCut: Never, Targets: Some, Switches: true, Most: switching, New: newLimit},
		{Name: "calendar", Role: order.Command, AfterCut: Never, Targets: Some, Most: switching, New: newCalendar},
		{Name: "special-days", Role: order.Command, AfterCut: Never, Targets: Some, Most: switching, New: newSpecialDays},
		{Name: "demand-reset", Role: order.Command, AfterCut: Never, Targets: Some, Most: switching, New: newDemandReset},
		{Name: "change-keys", Role: order.Control, AfterCut: Resume, Targets: Some, Most: switching, New: newChangeKeys},
		{Name: "import-keys", Role: order.Control, AfterCut: Resume, New: newImportKeys},
		{Name: "meter-image", Role: order.Control, AfterCut: Resume, New: newMeterImage},
		{Name: "meter-firmware", Role: order.Control, AfterCut: Resume, Targets: Some, Most: 14 * 24 * time.Hour, New: newMeterFirmware},
		{Name: "tunnel", Role: order.Control, AfterCut: Never, Targets: One, Switches: true, Most: mostTunnel + time.Hour, New: newTunnel},
	}
}

// MeterServices is what the actions on meters need of the conductor beside
// Job.Visit, as functions; package agent fills it in (agent/commandmeter.go).
type MeterServices struct {
	Keys KeyStore // nil: the gateway has none
	// KeyNames gives the names of the secrets that the address of a meter refers
	// to, and of its master key; an error where they are not in the store.
	KeyNames func(id meter.ID) (KeyNames, error)
	// Changing says that the keys of a meter are being changed until end is called:
	// meanwhile nobody else settles which it has. An error says why they cannot be.
	// nil: nobody else does.
	Changing func(id meter.ID) (end func(), err error)
	// Find gives the meter that is configured with a serial number.
	Find func(serial string) (meter.ID, bool)
	// Images is the directory that images for meters are kept in; "": nowhere.
	Images string
	// Listen gives what comes for the tunnel that a command opens, and Send sends
	// what its meter says. What is more than a channel holds is lost.
	Listen func(command string) (packets <-chan []byte, stop func())
	Send   func(command string, part int, data []byte)
}
