package meter

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestSecretIsNotShown prints acts that hold keys in all ways.
func TestSecretIsNotShown(t *testing.T) {
	t.Parallel()
	const key = "sixteen octets!!"
	for _, v := range []any{
		Secret(key),
		ChangeKeys{Keys: map[KeyKind]Secret{UnicastKey: Secret(key)}, Master: Secret(key)},
		Outcome{Act: ChangeKeys{Master: Secret(key)}},
		Ask{Acts: []Act{TryKeys{Keys: map[KeyKind]Secret{AuthenticationKey: Secret(key)}}}},
	} {
		all := fmt.Sprintf("%v %+v %#v %s %x %d %q", v, v, v, v, v, v, v)
		if b, err := json.Marshal(v); err == nil {
			all += string(b)
		}
		for _, shown := range []string{key, "sixteen", fmt.Sprintf("%x", key), "115 105 120", "0x73, 0x69", "c2l4dGVlbiBvY3RldHMhIQ"} {
			if strings.Contains(all, shown) {
				t.Errorf("%T shows %q", v, shown)
			}
		}
	}
}

func TestRefuseActs(t *testing.T) {
	t.Parallel()
	acts := []Act{Disconnect{}, Look{At: Connect{}}}
	out := RefuseActs(acts, Stamp{Time: 7}, ErrCannotAct)
	if len(out) != 2 {
		t.Fatalf("%+v", out)
	}
	for i, o := range out {
		if o.Act != acts[i] || o.Result != Refused || !errors.Is(o.Err, ErrCannotAct) || !strings.HasPrefix(o.Err.Error(), acts[i].Name()) || o.At.Time != 7 || o.Sent {
			t.Errorf("%+v", o)
		}
	}
}
