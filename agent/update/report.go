package update

import "time"

// Report is what up/firmware says, retained.
type Report struct {
	Time     time.Time `json:"time"`
	Agent    string    `json:"agent"` // version of the program that runs
	Board    string    `json:"board"`
	Slot     string    `json:"slot"`               // that runs: a, b, or f for the factory's
	Firmware string    `json:"firmware,omitempty"` // version of the firmware that was kept last, where one came by an update
	Groups   []string  `json:"groups,omitempty"`   // that the gateway is a member of
	Document *Progress `json:"document,omitempty"` // that is being dealt with
	Last     *Outcome  `json:"last,omitempty"`     // what came of the one before
}

// Document names a signed document.
type Document struct {
	Kind     string `json:"kind,omitempty"` // firmware
	Target   string `json:"target,omitempty"`
	Version  uint64 `json:"version,omitempty"`
	Hash     string `json:"sha256,omitempty"` // of what is signed
	Firmware string `json:"firmware,omitempty"`
}

// Progress is how far an update is.
type Progress struct {
	Document
	Step Step  `json:"step"`
	Have int64 `json:"have"` // octets of what has to be fetched
	Need int64 `json:"need"`
	// Waits says what it waits for; empty: for nothing.
	Waits string `json:"waits,omitempty"`
}

// Step is what is done for an update.
type Step string

// The steps of an update.
const (
	Waiting    Step = "waiting"
	Fetching   Step = "fetching"
	Verifying  Step = "verifying"
	Installing Step = "installing"
	Restarting Step = "restarting"
	Proving    Step = "proving"
)

// Outcome is what came of an update: kept, reverted, refused or broken.
type Outcome struct {
	Document
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
}
