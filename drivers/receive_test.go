package drivers

import (
	"testing"

	"gridgate/dlms/security"
	"gridgate/drivers/address"
	"gridgate/internal/secret"
)

func TestKnownByTitle(t *testing.T) {
	t.Parallel()
	a, err := address.Parse("dlms+hdlc:///dev/ttyS1?auth=gmac&title=GRIDGATE&meter=4752470000000001&ek=env:EK&ak=env:AK")
	if err != nil {
		t.Fatal(err)
	}
	key := []byte("000102030405060708090A0B0C0D0E0F")
	k, err := Known(Config{ID: "m", Serial: "7", Address: a, Secrets: address.Credentials{EK: secret.Of(key), AK: secret.Of(key)}})
	want := security.Title{'G', 'R', 'G', 0, 0, 0, 0, 1}
	if err != nil || k.Title != want || k.Host.IsValid() || k.Policy != security.Authenticated {
		t.Errorf("%v, %+v", err, k)
	}
}
