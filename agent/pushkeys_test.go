package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gridgate/configs"
	"gridgate/dlms/security"
	"gridgate/internal/proctest"
)

// TestPushesUnderANewKey: a key file that was changed counts for pushes too, once
// the configuration is applied again.
func TestPushesUnderANewKey(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	port := proctest.FreePorts(t, 2)
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	file := filepath.Join(s.dir, "key")
	put := func(first byte) security.Key {
		octets := append([]byte{first}, bytes.Repeat([]byte{7}, 15)...)
		if err := os.WriteFile(file, []byte(hex.EncodeToString(octets)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Unix(int64(first), 0), time.Unix(int64(first), 0)); err != nil {
			t.Fatal(err)
		}
		key, err := security.NewKey(octets)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key := put(1)
	s.config("here", fmt.Sprintf(`{id: m, groups: [slow], url: "dlms+wrapper://127.0.0.1:%d?client=1&auth=gmac&security=authenc&title=4752470000000001&ek=file:%s&ak=file:%s"}`, port+1, file, file))
	path := filepath.Join(s.dir, "gridgate.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := configs.Parse(path, append(text, "push: {listen: [\"udp://"+listen+"\"]}\n"...))
	if err != nil {
		t.Fatal(err)
	}
	s.make(cfg)
	s.run()
	c, err := net.Dial("udp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	push := func(key security.Key) func() bool {
		title := security.Title([]byte("GRG00001"))
		sender := security.Sender{
			Policy: security.AuthenticatedEncrypted, Title: title, Keys: security.Keys{Encryption: key, Authentication: key},
			Counter: security.NewCounter(&security.Memory{}, title, key, 1),
		}
		want := s.alarms() + 1
		return func() bool {
			apdu, err := sender.Protect(nil, lastGasp("S", 1)[8:], security.Unicast, true)
			if err != nil {
				t.Fatal(err)
			}
			frame := binary.BigEndian.AppendUint16([]byte{0, 1, 0, 1, 0, 16}, uint16(len(apdu)))
			_, _ = c.Write(append(frame, apdu...))
			return s.alarms() >= want
		}
	}
	proctest.Until(t, "a push under the first key", push(key))
	key = put(2)
	if err := s.agent.Apply(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	next := push(key)
	for i := uint64(0); !next(); i++ {
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(50 * time.Millisecond):
		}
		if i > 100 {
			t.Fatalf("no push is taken under the second key: %q", s.agent.Report().Notes)
		}
	}
}
