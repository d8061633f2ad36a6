// Command imagetest stands in for gridgate in tests of images: it says to the
// first process that it runs, and does over HTTP what a test wants to be done
// there. With "\nimagetest: hang" behind the program it hangs.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "imagetest:", err)
		os.Exit(1)
	}
}

const word = "\nimagetest: "

func run() error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	fault := ""
	end := self[max(0, len(self)-64):] // and not where the program has its strings
	if i := bytes.LastIndex(end, []byte(word)); i >= 0 {
		fault = string(end[i+len(word):])
	}
	if err := notify("READY=1"); err != nil {
		return err
	}
	if fault == "hang" {
		fmt.Fprintln(os.Stderr, "imagetest: hangs, as it was made to")
		for {
			time.Sleep(time.Hour)
		}
	}
	go func() {
		for range time.Tick(time.Second) {
			_ = notify("WATCHDOG=1") // the next one counts as well
		}
	}()
	http.HandleFunc("GET /self", about(fault))
	http.HandleFunc("POST /init", ask)
	http.HandleFunc("PUT /file", put)
	http.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, r.FormValue("path")) })
	server := http.Server{Addr: ":7777"} //nolint:gosec // in a machine that is a test's
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-stop: // what is asked for is answered
		return server.Shutdown(context.Background())
	}
}

func notify(text string) error {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	_, err = c.Write([]byte(text))
	return errors.Join(err, c.Close())
}

// about says what runs here.
func about(fault string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // is there
		_ = json.NewEncoder(w).Encode(map[string]any{             // who asks sees that it is missing
			"boot": string(bytes.TrimSpace(boot)), "fault": fault, "slot": os.Getenv("GRIDGATE_SLOT"),
			"board": os.Getenv("GRIDGATE_BOARD"), "init": os.Getenv("GRIDGATE_INIT"), "user": os.Getuid(),
		})
	}
}

// ask passes a request on to the first process, as it is.
func ask(w http.ResponseWriter, r *http.Request) {
	answer, err := func() ([]byte, error) {
		c, err := net.Dial("unix", os.Getenv("GRIDGATE_INIT"))
		if err != nil {
			return nil, err
		}
		defer func() { _ = c.Close() }()
		if _, err := io.Copy(c, r.Body); err != nil {
			return nil, err
		}
		return bufio.NewReader(c).ReadBytes('\n')
	}()
	reply(w, answer, err)
}

func put(w http.ResponseWriter, r *http.Request) {
	path := r.FormValue("path")
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		var f *os.File
		if f, err = os.Create(path); err == nil {
			_, err = io.Copy(f, r.Body)
			err = errors.Join(err, f.Sync(), f.Close())
		}
	}
	reply(w, nil, err)
}

func reply(w http.ResponseWriter, answer []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(answer) // who asks sees that it is missing
}
