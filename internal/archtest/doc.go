// Package archtest holds the house rules that a test can hold: which package
// may import which, who owns each module from elsewhere, what must not be in
// the firmware, how long a file may be. It has tests only.
//
// To add a package, draw it in drawing (rules_test.go): one line with the
// packages that it imports. To take a module from elsewhere, name its owner in
// owners, and write down why in docs/decisions.
package archtest
