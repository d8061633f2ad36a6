package sys

import (
	"regexp"
	"testing"
)

func TestBootIDIsAUUID(t *testing.T) {
	t.Parallel()
	id, err := BootID()
	if err != nil || !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(id) {
		t.Fatalf("%q, %v", id, err)
	}
}

func TestUptimeRises(t *testing.T) {
	t.Parallel()
	first := Uptime()
	if first <= 0 {
		t.Fatal(first)
	}
	if second := Uptime(); second < first {
		t.Fatalf("%v after %v", second, first)
	}
}

func TestClockErrorIsBounded(t *testing.T) {
	t.Parallel()
	if bound, ok := ClockError(); ok && bound <= 0 || !ok && bound != 0 {
		t.Fatalf("%v, %v", bound, ok)
	}
}

func TestResidentIsLessThanTheMachineHas(t *testing.T) {
	t.Parallel()
	if anonymous, ram := Resident(); anonymous < 100<<10 || ram < 16<<20 || anonymous >= ram {
		t.Errorf("%d of %d octets", anonymous, ram)
	}
}
