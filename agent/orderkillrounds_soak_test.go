//go:build soak

package agent

const killRounds = 20
