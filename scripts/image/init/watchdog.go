package main

import (
	"context"
	"log"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watchdog is the machine's: it resets what is not fed.
type watchdog struct{ f *os.File }

const watchdogTimeout = 30 // seconds; most hardware can do no more than some more

func openWatchdog(m *modules) *watchdog {
	f, err := os.OpenFile("/dev/watchdog0", os.O_WRONLY, 0)
	if err != nil {
		m.load("softdog")
		for range 20 {
			if f, err = os.OpenFile("/dev/watchdog0", os.O_WRONLY, 0); err == nil {
				break
			}
			time.Sleep(50 * time.Millisecond) //nolint:forbidigo // nothing else goes on
		}
	}
	if err != nil {
		log.Printf("there is no watchdog: %v", err)
		return &watchdog{}
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, watchdogTimeout); err != nil {
		log.Printf("the watchdog keeps its own time: %v", err)
	}
	return &watchdog{f: f}
}

// longestSetup is what mounting, mending and the first start may take together.
const longestSetup = 10 * time.Minute

// during feeds while something is done that takes its time.
func (w *watchdog) during(do func()) {
	ctx, cancel := context.WithTimeout(context.Background(), longestSetup)
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for ctx.Err() == nil {
			w.feed()
			pause(ctx, feedEvery)
		}
	}()
	do()
	cancel()
	<-fed
}

func (w *watchdog) feed() {
	if w.f != nil {
		if _, err := w.f.WriteString("."); err != nil {
			log.Printf("the watchdog: %v", err)
		}
	}
}
