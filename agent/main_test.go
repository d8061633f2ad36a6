package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"gridgate/configs"
	"gridgate/internal/meter"
)

// earlyAckConfig, when set in the environment, makes the test binary an agent
// that removes rows when they are sent and not when they are acknowledged: the
// negative control of the end-to-end test.
const earlyAckConfig = "GRIDGATE_TEST_EARLY_ACK_CONFIG"

func TestMain(m *testing.M) {
	if path := os.Getenv(earlyAckConfig); path != "" {
		if err := runEarlyAck(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv("GRIDGATE_TEST_CUT_DIR"); dir != "" {
		if err := runCut(dir, os.Getenv("GRIDGATE_TEST_CUT_DOCUMENTS")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func runEarlyAck(path string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := configs.Load(path)
	if err != nil {
		return err
	}
	a, err := New(cfg, Options{Version: "control", Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)), Getenv: os.Getenv})
	if err != nil {
		return err
	}
	a.uplinkStore = earlyAck{a.uplinkStore}
	return a.Run(ctx)
}

// earlyAck acknowledges what is taken.
type earlyAck struct{ uplinkStore }

func (e earlyAck) Peek(lane meter.Lane, after uint64, maxRows int) (meter.Span, error) {
	span, err := e.uplinkStore.Peek(lane, after, maxRows)
	if err == nil && span.Last > 0 {
		err = e.uplinkStore.Ack(lane, span.Last)
	}
	return span, err
}
