package proctest

import "testing"

func TestPortsAreNobodyElses(t *testing.T) {
	t.Parallel()
	taken := map[int]bool{}
	for range 50 {
		first := FreePorts(t, 20)
		for port := first; port < first+20; port++ {
			if taken[port] {
				t.Fatalf("port %d was given out twice", port)
			}
			taken[port] = true
		}
	}
}
