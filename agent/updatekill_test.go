package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/agent/update"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// packaged is a gateway with the package's slots, its broker, and its utility.
type packaged struct {
	*site
	u   utility
	fog *mqtt.Conn
	env []string
}

func newPackaged(t *testing.T, bin string) *packaged {
	t.Helper()
	s, u := newSite(t), newUtility(t)
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	s.broker, s.program = broker.Address, bin
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	fog, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker.Address, ClientID: "fog"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fog.Close)
	slots := filepath.Join(s.dir, "firmware", "slots")
	if err := os.MkdirAll(slots, 0o755); err != nil {
		t.Fatal(err)
	}
	return &packaged{site: s, u: u, fog: fog, env: []string{update.EnvSlots + "=" + slots}}
}

func (p *packaged) retain(topic string, payload []byte) {
	p.t.Helper()
	token, err := p.fog.Publish(p.t.Context(), topic, true, payload)
	if err != nil {
		p.t.Fatal(err)
	}
	<-token.Done()
	if err := token.Err(); err != nil {
		p.t.Fatal(err)
	}
}

// part publishes what a hash names.
func (p *packaged) part(data []byte) (sum [32]byte) {
	p.t.Helper()
	sum = sha256.Sum256(data)
	p.retain(mqtt.PartOfFirmware("here", [16]byte(sum[:16])), data)
	return sum
}

// publish has the broker retain a program as firmware.
func (p *packaged) publish(version int, firmware string, program []byte) {
	p.t.Helper()
	const size = 64 << 10
	_, sum, index, err := update.Divide(bytes.NewReader(program), size)
	if err != nil {
		p.t.Fatal(err)
	}
	for at := 0; at < len(program); at += size {
		p.part(program[at:min(at+size, len(program))])
	}
	list := p.part(index)
	object := hex.EncodeToString(sum[:])
	board := update.NewLinkSlots(p.dir, "", nil)
	s, err := board.State()
	if err != nil {
		p.t.Fatal(err)
	}
	p.retain(mqtt.OrderTopic("here", "gw1", "", "firmware"), p.u.sign(order.Firmware, fmt.Sprintf(
		"gridgate: 1\nkind: firmware\ntarget: here/gw1\nversion: %d\n---\nfirmware: %s\nboards:\n  %s:\n    - {name: gridgate, size: %d, sha256: %s, pack: none, packed: %d, object: %s, part: %d, index: %x}\n",
		version, firmware, s.Board, len(program), object, len(program), object, size, list)))
}

// another gives a program that does the same and has another hash.
func another(t *testing.T, bin string) []byte {
	t.Helper()
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	return append(data, "B"...)
}

func (p *packaged) start(step string) *proctest.Process {
	p.t.Helper()
	return p.process(step, p.env...)
}

// TestFirmwareKilledAtEveryStep: whatever is cut, the gateway starts from a whole
// slot, and in the end from the new one; its buffer is the one that it was.
func TestFirmwareKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	bin := gridgate(t)
	next := another(t, bin)
	for _, step := range []string{
		"", "firmware-put", "firmware-seen", "firmware-begun", "firmware-installed", "firmware-switched", "firmware-confirmed", "firmware-noted", "firmware-told", "firmware-ended",
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			p := newPackaged(t, bin)
			running := p.start(step)
			before := p.orders("the meter is read", reads)
			p.publish(1, "1.3.0", next)
			if step != "" {
				running.Wait()
				running = p.start("")
			}
			r := p.orders("the firmware is kept", func(r status.Report) bool {
				return r.Firmware != nil && r.Firmware.Update == "" && strings.Contains(r.Firmware.Last, "1.3.0") && reads(r)
			})
			if r.Firmware.Slot != "a" || !strings.Contains(r.Firmware.Last, "version 1: firmware 1.3.0: kept") || r.Firmware.Version != "1.3.0" {
				t.Errorf("%+v", r.Firmware)
			}
			if r.Epoch != before.Epoch {
				t.Errorf("another buffer: %s, %s before", r.Epoch, before.Epoch)
			}
			if code := running.Stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			running = p.start("") // what was confirmed is what starts
			r = p.orders("the meter is read", reads)
			if r.Firmware == nil || r.Firmware.Slot != "a" || r.Firmware.OnTrial != "" {
				t.Errorf("after a restart: %+v", r.Firmware)
			}
			running.Stop()
		})
	}
}

// TestFirmwareThatExits: the service manager starts it as often as it has tries, and
// then the packaged program, which says so.
func TestFirmwareThatExits(t *testing.T) {
	t.Parallel()
	p := newPackaged(t, gridgate(t))
	running := p.start("")
	p.orders("the meter is read", reads)
	p.publish(1, "1.3.0", []byte("#!/bin/sh\nexit 3\n"))
	running.Wait()
	var r status.Report
	for range 4 {
		running = p.start("")
		proctest.Until(t, "it runs or has ended", func() bool {
			var err error
			r, err = status.Ask(t.Context(), filepath.Join(p.dir, "c"))
			return running.Ended() || err == nil && reads(r)
		})
		if !running.Ended() {
			break
		}
	}
	r = p.orders("it is reported", func(r status.Report) bool {
		return r.Firmware != nil && r.Firmware.Last != "" && r.Firmware.Update == ""
	})
	if r.Firmware.Slot != "f" || !strings.Contains(r.Firmware.Last, "reverted: slot a did not prove itself") {
		t.Errorf("%+v", r.Firmware)
	}
	running.Stop()
	if all := p.entries(); !strings.Contains(strings.Join(all, " "), "firmware.reverted") {
		t.Errorf("audit: %q", all)
	}
}
