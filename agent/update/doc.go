// Package update brings new firmware: a signed manifest says of which files a
// slot is made, those that are missing are fetched in parts, and what is whole
// and verified is written to the slot that does not run.
//
//	document ── ParseManifest, For, Judge ──> files
//	files ── Store.Begin ──> Job: what runs already, what is there, what is missing
//	Job.Fetch <── Source: parts by their hashes, from a broker, HTTP, Dir
//	Job.Stage ──> []Staged, verified ── Slots.Install, Switch, Restart, Confirm
//
// A hash that is signed vouches for each octet, wherever it came from and
// however often the power was cut: nothing else is remembered.
package update
