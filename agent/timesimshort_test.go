//go:build !soak

package agent

// How much of TestAMonth is run every day; see timesimlong_test.go.
const (
	simSeeds = 20
	simDays  = 30
)
