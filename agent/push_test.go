package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gridgate/buffer"
	"gridgate/configs"
	"gridgate/internal/meter"
	"gridgate/internal/proctest"
)

// lastGasp is a confirmed data-notification in a wrapper: a serial number and
// an alarm register, each behind its code.
func lastGasp(serial string, bits uint32) []byte {
	apdu := []byte{0x0F, 0x40, 0, 0, 7, 0, 2, 4, 9, 6, 0, 0, 96, 1, 0, 255, 10, byte(len(serial))}
	apdu = append(apdu, serial...)
	apdu = append(apdu, 9, 6, 0, 0, 97, 98, 0, 255, 6)
	apdu = binary.BigEndian.AppendUint32(apdu, bits)
	frame := []byte{0, 1, 0, 1, 0, 16}
	return append(binary.BigEndian.AppendUint16(frame, uint16(len(apdu))), apdu...)
}

// gasp sends a push over TCP and waits for the confirmation.
func gasp(address string, frame []byte) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	_, err = c.Write(frame)
	answer := make([]byte, 8)
	if err == nil {
		_, err = io.ReadFull(c, answer)
	}
	if err == nil {
		answer = make([]byte, binary.BigEndian.Uint16(answer[6:]))
		_, err = io.ReadFull(c, answer)
	}
	if err == nil && (len(answer) < 5 || answer[0] != 0x10) {
		err = fmt.Errorf("answered %x", answer)
	}
	return errors.Join(err, c.Close())
}

// pushSite is a site with n meters that cannot be polled, and a port for pushes.
func pushSite(t *testing.T, n int) (s *site, cfg *configs.Config, listen string) {
	t.Helper()
	s = newSite(t)
	port := proctest.FreePorts(t, 2)
	listen = fmt.Sprintf("127.0.0.1:%d", port)
	var meters []string
	for i := range n {
		meters = append(meters, fmt.Sprintf(`{id: m%d, serial: "S%03d", groups: [slow], url: "dlms+wrapper://127.0.0.1:%d?server=%d"}`, i, i, port+1, i+1))
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "gridgate.yaml"))
	if err == nil {
		t.Fatalf("there is a configuration: %s", text)
	}
	s.config("here", meters...)
	path := filepath.Join(s.dir, "gridgate.yaml")
	if text, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	cfg, err = configs.Parse(path, append(text, fmt.Sprintf("push: {listen: [\"tcp://%s\", \"udp://%s\"]}\n", listen, listen)...))
	if err != nil {
		t.Fatal(err)
	}
	return s, cfg, listen
}

func (s *site) alarms() (n uint64) {
	for _, l := range s.agent.Report().Lanes {
		if l.Lane == meter.Alarm.String() {
			n = l.Last
		}
	}
	return n
}

// TestAFeederLeavesFiveHundredMeters: each of their last gasps is confirmed once
// it is on the disk, none is lost, none counts twice, and they share commits.
func TestAFeederLeavesFiveHundredMeters(t *testing.T) {
	t.Parallel()
	const n = 500
	s, cfg, listen := pushSite(t, n)
	s.make(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.agent.Run(ctx) }()
	proctest.Until(t, "the port is open", func() bool { return gasp(listen, lastGasp("S000", 1)) == nil })
	var all sync.WaitGroup
	errs := make(chan error, 2*n)
	for i := range n {
		frame := lastGasp(fmt.Sprintf("S%03d", i), 2)
		all.Go(func() {
			errs <- gasp(listen, frame)
			if i%10 == 0 {
				errs <- gasp(listen, frame) // the confirmation was lost on its way
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	commits := s.agent.intake.Stats().Commits
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if commits > n/4 {
		t.Errorf("%d commits for %d last gasps", commits, n)
	}
	seen := make(map[string]int)
	err := buffer.Dump(filepath.Join(s.dir, "buffer"), []meter.Lane{meter.Alarm}, func(_ uint64, row meter.Row) error {
		seen[row.Serial+" "+row.Value.String()]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if c := seen[fmt.Sprintf("S%03d 2", i)]; c != 1 {
			t.Errorf("the last gasp of S%03d is stored %d times", i, c)
		}
	}
}

func TestAStrangersPushIsToldAndNotStored(t *testing.T) {
	t.Parallel()
	for meters := range 2 { // the host of one alone knows it, and of two none
		strangersPush(t, meters+1)
	}
}

func strangersPush(t *testing.T, meters int) {
	t.Helper()
	s, cfg, listen := pushSite(t, meters)
	s.make(cfg)
	s.run()
	proctest.Until(t, "the port is open", func() bool { return gasp(listen, lastGasp("S000", 1)) == nil })
	c, err := net.Dial("udp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, frame := range [][]byte{lastGasp("X1", 1), {0, 1, 2}, lastGasp("S000", 2)} {
		if _, err := c.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
		t.Error(err)
	}
	if n := s.alarms(); n != 2 {
		t.Errorf("%d alarms are stored, want 2", n)
	}
	notes := strings.Join(s.agent.Report().Notes, "\n")
	if !strings.Contains(notes, "127.0.0.1 pushes, and is not configured") {
		t.Errorf("notes %q", notes)
	}
}
