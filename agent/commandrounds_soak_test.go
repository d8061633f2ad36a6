//go:build soak

package agent

// killRounds is how often each step of a command is cut.
const killRounds = 20
