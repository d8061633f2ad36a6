// Package update brings new firmware: a signed manifest says of which files a
// slot is made, those that are missing are fetched in parts, and what is whole
// and verified is written to the slot that does not run.
package update
