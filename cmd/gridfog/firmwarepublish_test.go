package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/agent/order"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// retainedAt gives what a broker has retained below a filter: at least so many
// messages, and then what comes within a second.
func retainedAt(t *testing.T, address, filter string, least int) map[string][]byte {
	t.Helper()
	conn, err := mqtt.Dial(t.Context(), mqtt.Options{Address: address, ClientID: "look-" + meterName(filter)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var mu sync.Mutex
	got := map[string][]byte{}
	quiet := time.Now()
	if err := conn.Subscribe(t.Context(), filter, func(m mqtt.Message) {
		mu.Lock()
		defer mu.Unlock()
		got[m.Topic], quiet = bytes.Clone(m.Payload), time.Now()
	}); err != nil {
		t.Fatal(err)
	}
	proctest.Until(t, "all that is retained", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) >= least && time.Since(quiet) > time.Second
	})
	mu.Lock()
	defer mu.Unlock()
	return got
}

func meterName(s string) string {
	return strings.NewReplacer("/", "-", "+", "x", "#", "y", "_", "-").Replace(s)
}

// fleetOf gives a desk, a broker and a slot that packs into a handful of parts.
func fleetOf(t *testing.T) (d *desk, address, slot string) {
	t.Helper()
	d = newDesk(t)
	return d, mqtttest.Mosquitto(t, mqtttest.Config{}).Address, d.slotFolder("slot", map[string][]byte{"gridgate": noise(20_000, 1), "vmlinuz": noise(9000, 2)})
}

func (d *desk) publish(address string, more ...string) (stdout, stderr string, code int) {
	return d.run(append([]string{"firmware", "publish", "-broker", "mqtt://" + address, "-objects", d.file("objects"), "-wait", "90s"}, more...)...)
}

// TestFirmwareInWaves: each wave begins when the one before has ended well, and
// what it wants is at the broker before the document is. Again it is a no-op.
func TestFirmwareInWaves(t *testing.T) {
	t.Parallel()
	d, address, slot := fleetOf(t)
	canary := d.pack("canary", "north/_group/canary", 1, slot)
	rest := d.pack("rest", "north/_group/rest", 1, slot)
	one := d.pack("one", "north/gw-9", 4, slot)
	first := newBox(t, address, "gw-1", []string{"canary"}, all("kept"))
	newBox(t, address, "gw-2", []string{"canary", "other"}, all("kept"))
	wavesInOrder := func(doc *order.Document) (string, string) {
		if first.documents() == 0 {
			t.Error("the second wave began before the first")
		}
		return "kept", ""
	}
	for _, name := range []string{"gw-3", "gw-4"} {
		newBox(t, address, name, []string{"rest"}, wavesInOrder)
	}
	newBox(t, address, "gw-9", nil, wavesInOrder)
	newBox(t, address, "gw-8", []string{"nothing"}, all("broken")) // is asked nothing
	args := []string{"-wave", canary, "-wave", rest + "," + one, "-trust", d.signedTrust()}
	out, stderr, code := d.publish(address, args...)
	if code != 0 || strings.Count(out, "kept") != 5 || strings.Contains(out, "gw-8") {
		t.Fatalf("exit %d\n%s\n%s", code, out, stderr)
	}
	for _, text := range []string{"2  north/gw-9  north/gw-9 v4 (1.4.0)", "1  north/gw-1  north/_group/canary v1 (1.4.0)"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(text), " ")) {
			t.Errorf("it does not say %q:\n%s", text, out)
		}
	}
	if strings.Index(stderr, "10 of 10 parts for the site north") > strings.Index(stderr, "published on gridgate/1/north/_group/canary/down/firmware") {
		t.Error(stderr)
	}
	doc := mustRelease(t, canary)
	have := retainedAt(t, address, "gridgate/1/north/_firmware/+", 10)
	for _, f := range doc.manifest.Boards["virt-armv7"] {
		object, err := openObject(d.file("objects"), f)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		if err := object.each("north", func(topic string, payload []byte) error {
			if n++; !bytes.Equal(have[topic], payload) || !strings.HasSuffix(topic, fmt.Sprintf("%x", sum16(payload))) {
				t.Errorf("%s of %s: %d octets are retained, not %d", topic, f.Name, len(have[topic]), len(payload))
			}
			delete(have, topic)
			return nil
		}); err != nil || n != f.Parts()+1 {
			t.Error(n, err)
		}
	}
	if len(have) > 0 {
		t.Errorf("%d messages more are retained", len(have))
	}
	out, stderr, code = d.publish(address, append(args, "-json")...)
	if code != 0 || strings.Count(out, `"state":"kept"`) != 5 || !strings.Contains(stderr, "the broker has all parts for the site north") {
		t.Errorf("again: exit %d\n%s\n%s", code, out, stderr)
	}
}

func sum16(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:16]
}

func mustRelease(t *testing.T, path string) *release {
	t.Helper()
	r, err := readRelease(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// signedTrust gives the desk's trust document, signed.
func (d *desk) signedTrust() string {
	d.t.Helper()
	d.must("sign", "-key", d.file("r1.key"), "-out", d.file("trust.1"), d.file("trust.yaml"))
	d.must("sign", "-key", d.file("r2.key"), "-out", d.file("trust"), d.file("trust.1"))
	return d.file("trust")
}

// TestFirmwareStopsOnFailures, says at whom and why, leaves the next wave
// alone, and goes on when more may fail.
func TestFirmwareStopsOnFailures(t *testing.T) {
	t.Parallel()
	d, address, slot := fleetOf(t)
	canary, rest := d.pack("canary", "north/_group/canary", 1, slot), d.pack("rest", "north/_group/rest", 1, slot)
	newBox(t, address, "gw-1", []string{"canary"}, all("kept"))
	newBox(t, address, "gw-2", []string{"canary"}, func(*order.Document) (string, string) { return "reverted", "reads no meters" })
	last := newBox(t, address, "gw-3", []string{"rest"}, all("kept"))
	out, stderr, code := d.publish(address, "-wave", canary, rest)
	for _, text := range []string{
		"stopped at wave 1 of 2: 1 of 2 gateways failed, 0 may", "north/gw-2: north/_group/canary v1 (1.4.0): reverted: reads no meters",
		"gridfog firmware withdraw -broker mqtt://" + address,
	} {
		if !strings.Contains(stderr, text) {
			t.Errorf("it does not say %q:\n%s", text, stderr)
		}
	}
	if code != 1 || !strings.Contains(out, "reverted") || strings.Contains(out, "gw-3") || last.documents() > 0 {
		t.Errorf("exit %d, gw-3 got %d\n%s", code, last.documents(), out)
	}
	if have := retainedAt(t, address, "gridgate/1/north/_group/rest/down/firmware", 0); len(have) > 0 {
		t.Error("the second wave was published")
	}
	if out, stderr, code := d.publish(address, "-max-failures", "1", "-wave", canary, rest); code != 0 || strings.Count(out, "kept") != 2 || last.documents() != 1 {
		t.Errorf("exit %d\n%s\n%s", code, out, stderr)
	}
}

// TestFirmwareIsNotWaitedForWithoutEnd: who is silent is pending, not failed;
// enough of them stop a roll-out, and a few do not.
func TestFirmwareIsNotWaitedForWithoutEnd(t *testing.T) {
	t.Parallel()
	d, address, slot := fleetOf(t)
	canary := d.pack("canary", "north/_group/canary", 1, slot)
	rest := d.pack("rest", "north/_group/rest", 1, slot)
	nobody := d.pack("nobody", "north/_group/nobody", 1, slot)
	good := newBox(t, address, "gw-1", []string{"canary"}, all("kept"))
	newBox(t, address, "gw-2", []string{"canary"}, all(""))
	fetches := newBox(t, address, "gw-3", []string{"canary"}, all("fetching"))
	waits := newBox(t, address, "gw-7", []string{"canary"}, all("waiting"))
	newBox(t, address, "gw-4", []string{"rest"}, all("kept"))
	away, err := mqtt.Dial(t.Context(), mqtt.Options{Address: address, ClientID: "gw-2-state"})
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	token, err := away.Publish(t.Context(), mqtt.StateTopic("north", "gw-2"), true, []byte(`{"state":"offline","reason":"lost"}`))
	if err != nil {
		t.Fatal(err)
	}
	<-token.Done()
	members := d.write("members", "gateway north/gw-5 canary\ngateway south/gw-6 canary\n")
	run := func(more ...string) (string, string, int) {
		return d.publish(address, append([]string{"-wait", "5s"}, more...)...)
	}
	if _, stderr, code := run("-wait", "0", canary); code != 0 {
		t.Fatal(stderr)
	}
	good.has("kept")
	fetches.has("fetching")
	waits.has("waiting")

	out, stderr, code := run("-members", members, "-wave", canary, rest)
	for _, text := range []string{
		"4 of 5 gateways have not ended",
		"gw-7: north/_group/canary v1 (1.4.0): pending: waiting: because",
		"gw-2: north/_group/canary v1 (1.4.0): pending: offline; it has not said that it has the document",
		"fetching 25%; waits: traffic budget",
		"north/gw-5: north/_group/canary v1 (1.4.0): pending: it has not said a word of firmware",
	} {
		if !strings.Contains(stderr, text) {
			t.Errorf("it does not say %q:\n%s", text, stderr)
		}
	}
	if code != 1 || strings.Count(out, "pending") != 4 || strings.Contains(out, "gw-4") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if out, stderr, code = run("-max-pending", "74%", "-wave", canary, rest); code != 1 || strings.Contains(out, "gw-4") { // 2 of 4 may
		t.Errorf("exit %d\n%s\n%s", code, out, stderr)
	}
	if out, stderr, code = run("-max-pending", "3", "-wave", canary, rest); code != 0 || !strings.Contains(out, "gw-4") {
		t.Errorf("exit %d\n%s\n%s", code, out, stderr)
	}
	if _, stderr, code = run(nobody); code != 1 || !strings.Contains(stderr, "no gateway has said that it is a member of north/_group/nobody") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	if _, stderr, code = run("-wait", "0", nobody); code != 0 || !strings.Contains(stderr, "published on gridgate/1/north/_group/nobody/down/firmware") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// TestFirmwareGoesOn: a roll-out that ended with its desk goes on where it was,
// for gateways that have ended in the meantime too.
func TestFirmwareGoesOn(t *testing.T) {
	t.Parallel()
	d, address, slot := fleetOf(t)
	canary, rest := d.pack("canary", "north/gw-1", 1, slot), d.pack("rest", "north/_group/rest", 1, slot)
	come := make(chan string, 1)
	slow := newBox(t, address, "gw-1", nil, func(*order.Document) (string, string) { return <-come, "" })
	newBox(t, address, "gw-2", []string{"rest"}, all("kept"))
	if _, stderr, code := d.publish(address, "-wait", "1s", "-wave", canary, rest); code != 1 || !strings.Contains(stderr, "north/gw-1: north/gw-1 v1 (1.4.0): pending") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	come <- "kept"
	slow.has("kept")
	come <- "kept" // to the same document again
	out, stderr, code := d.publish(address, "-wave", canary, rest)
	if code != 0 || strings.Count(out, "kept") != 2 || !strings.Contains(stderr, "the broker has all parts") {
		t.Errorf("exit %d\n%s\n%s", code, out, stderr)
	}
}

// TestFirmwareIsTakenBack: only what is still there, and no part that another
// document needs.
func TestFirmwareIsTakenBack(t *testing.T) {
	t.Parallel()
	d, address, slot := fleetOf(t)
	other := d.slotFolder("other", map[string][]byte{"gridgate": noise(9000, 3), "vmlinuz": noise(9000, 2)})
	old := d.pack("old", "north/_group/canary", 1, slot)
	mine := d.pack("mine", "north/_group/canary", 2, slot)
	keeps := d.pack("keeps", "north/gw-7", 1, other)
	if _, stderr, code := d.publish(address, "-wait", "0", mine, keeps); code != 0 {
		t.Fatal(stderr)
	}
	withdraw := func(more ...string) string {
		t.Helper()
		_, stderr, code := d.run(append([]string{"firmware", "withdraw", "-broker", "mqtt://" + address}, more...)...)
		if code != 0 {
			t.Errorf("exit %d: %s", code, stderr)
		}
		return stderr
	}
	topics := func(gateways, groups int) (all []string) {
		for filter, least := range map[string]int{"gridgate/1/north/+/down/firmware": gateways, "gridgate/1/north/_group/+/down/firmware": groups} {
			for topic := range retainedAt(t, address, filter, least) {
				all = append(all, topic)
			}
		}
		slices.Sort(all)
		return all
	}
	parts := func(least int) int { return len(retainedAt(t, address, "gridgate/1/north/_firmware/+", least)) }
	before := parts(14) // gridgate 5+1, vmlinuz 3+1, the other gridgate 3+1
	if before != 14 {
		t.Errorf("%d parts are retained", before)
	}
	if text := withdraw(old); !strings.Contains(text, "another one is retained") || !strings.Contains(text, "canary v2 (1.4.0)") || len(topics(1, 1)) != 2 {
		t.Error(text)
	}
	if text := withdraw(mine, "-objects", d.file("objects")); !strings.Contains(text, "6 parts taken from the site north\n") || !strings.Contains(text, "4 parts stay") {
		t.Error(text)
	}
	if left := topics(1, 0); !slices.Equal(left, []string{"gridgate/1/north/gw-7/down/firmware"}) {
		t.Errorf("%q are retained", left)
	}
	if n := parts(before - 6); n != before-6 {
		t.Errorf("%d of %d parts are retained", n, before)
	}
	if text := withdraw(mine); !strings.Contains(text, "nothing is retained") {
		t.Error(text)
	}
	withdraw(keeps, "-objects", d.file("objects"))
	if n := parts(0); n != 0 || len(topics(0, 0)) != 0 {
		t.Errorf("%d parts are retained", n)
	}
}

// TestFirmwareOverABrokerThatGoes: the broker is killed amid it, comes back
// with nothing, and gets everything again.
func TestFirmwareOverABrokerThatGoes(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	bin := proctest.Build(t, "gridfog")
	address := fmt.Sprintf("127.0.0.1:%d", proctest.FreePorts(t, 1))
	start := func() *proctest.Process {
		b := proctest.Start(t, nil, bin+"/gridfog", "broker", "-listen", address)
		b.Await("listening on")
		return b
	}
	b := start()
	fw := d.pack("fw", "north/_group/west", 1, d.slotFolder("slot", map[string][]byte{"gridgate": noise(40_000, 1)}))
	roll := proctest.Start(t, nil, bin+"/gridfog", "firmware", "publish", "-broker", "mqtt://"+address, "-objects", d.file("objects"), "-wait", "10m", fw)
	roll.Await("published on gridgate/1/north/_group/west/down/firmware")
	b.Kill()
	roll.Await("trying again")
	start()
	proctest.Until(t, "the broker has it again", func() bool {
		return len(retainedAt(t, address, "gridgate/1/north/_group/west/down/firmware", 1)) == 1
	})
	if n := len(retainedAt(t, address, "gridgate/1/north/_firmware/+", 11)); n != 11 {
		t.Errorf("%d parts are retained", n)
	}
	newBox(t, address, "gw-1", []string{"west"}, all("kept"))
	if code := roll.Wait(); code != 0 || !strings.Contains(roll.Output(), "north/gw-1") {
		t.Errorf("exit %d\n%s", code, roll.Output())
	}
}

// TestFirmwareThatMayNotBePublished: a broker that ends connections instead of
// taking firmware is not asked for ever.
func TestFirmwareThatMayNotBePublished(t *testing.T) {
	t.Parallel()
	d, p := newDesk(t), newPKI(t)
	p.sign("gw-1", "/CN=north\\/gw-1", "")
	_, port := p.broker(proctest.Build(t, "gridfog"))
	fw := d.pack("fw", "north/gw-1", 1, d.slotFolder("slot", map[string][]byte{"gridgate": noise(9000, 1)}))
	_, stderr, code := d.run("firmware", "publish", "-broker", "mqtts://127.0.0.1:"+port, "-ca", p.file("ca.pem"), "-cert", p.file("gw-1.pem"), "-key", p.file("gw-1.key"),
		"-objects", d.file("objects"), "-wait", "90s", fw)
	if code != 1 || !strings.Contains(stderr, "not allow") && !strings.Contains(stderr, "may this client publish firmware there?") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	p.sign("ops", "/OU=fog/CN=ops", "")
	_, stderr, code = d.run("firmware", "publish", "-broker", "mqtts://127.0.0.1:"+port, "-ca", p.file("ca.pem"), "-cert", p.file("ops.pem"), "-key", p.file("ops.key"),
		"-objects", d.file("objects"), "-wait", "0", fw)
	if code != 0 || !strings.Contains(stderr, "published on gridgate/1/north/gw-1/down/firmware") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// TestFirmwareStatus shows what gateways say, also those that say nonsense.
func TestFirmwareStatus(t *testing.T) {
	t.Parallel()
	d, address, slot := fleetOf(t)
	refuses := newBox(t, address, "gw-1", []string{"canary"}, func(*order.Document) (string, string) { return "refused", "no files\tfor this board\x1b[2J" })
	fetches := newBox(t, address, "gw-2", []string{"canary"}, all("fetching"))
	odd, err := mqtt.Dial(t.Context(), mqtt.Options{Address: address, ClientID: "odd"})
	if err != nil {
		t.Fatal(err)
	}
	defer odd.Close()
	for topic, text := range map[string]string{mqtt.FirmwareTopic("north", "gw-3"): "{", mqtt.FirmwareTopic("south", "gw-4"): "{}", mqtt.StateTopic("south", "gw-5"): "{}"} {
		token, err := odd.Publish(t.Context(), topic, true, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		<-token.Done()
	}
	if _, stderr, code := d.publish(address, "-wait", "0", d.pack("fw", "north/_group/canary", 7, slot)); code != 0 {
		t.Fatal(stderr)
	}
	refuses.has("refused")
	fetches.has("fetching")
	broker := []string{"firmware", "status", "-broker", "mqtt://" + address}
	var rows []string
	for line := range strings.Lines(d.must(broker...)) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"GATEWAY BOARD AGENT SLOT FIRMWARE DOCUMENT STEP PROGRESS OUTCOME REASON",
		"north/gw-1 virt-armv7 v1.3.0 a 1.3.0 north/_group/canary v7 (1.4.0) - - refused no files?for this board?[2J",
		"north/gw-2 virt-armv7 v1.3.0 a 1.3.0 north/_group/canary v7 (1.4.0) fetching 25% - traffic budget",
		"north/gw-3 - - - - - - - unreadable unexpected end of JSON input",
		"south/gw-4 - - - - - - - - -",
	}
	if !slices.Equal(rows, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
	members := d.write("members", "gateway north/gw-5\n")
	out := d.must(append(broker, "-site", "north", "-members", members, "-json")...)
	if strings.Count(out, "\n") != 4 || strings.Contains(out, "south") || !strings.Contains(out, `{"gateway":"north/gw-5"}`) || !strings.Contains(out, `"step":"fetching","have":50,"need":200`) {
		t.Error(out)
	}
}
