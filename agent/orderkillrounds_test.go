//go:build !soak

package agent

const killRounds = 1 // 20 in the long form
