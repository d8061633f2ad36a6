//go:build soak

package agent

const (
	simSeeds = 1000
	simDays  = 30
)
