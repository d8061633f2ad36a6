package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"
)

// The socket that gridgate asks at: a JSON object a line each way.
const (
	controlSocket  = "/run/init.sock"
	controlLine    = 64 << 10
	controlIdle    = 5 * time.Minute
	controlClients = 8
)

// request is what gridgate asks for.
type request struct {
	Do    string     `json:"do"`
	Files []slotFile `json:"files"`
}

// response is the answer: Error, or OK with what was asked for.
type response struct {
	OK    bool   `json:"ok,omitempty"`
	Error string `json:"error,omitempty"`
	*slotState
}

// serve answers requests until the listener is closed.
func (s *slots) serve(l net.Listener) {
	room := make(chan struct{}, controlClients)
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Printf("%s: %v", controlSocket, err)
			continue
		}
		select {
		case room <- struct{}{}:
			go func() {
				defer func() { <-room }()
				s.talk(conn)
			}()
		default:
			refuse(conn, "too many connections")
		}
	}
}

func refuse(conn net.Conn, why string) {
	_ = conn.SetDeadline(time.Now().Add(time.Second)) // one that cannot be answered is closed all the same
	_ = json.NewEncoder(conn).Encode(response{Error: why})
	_ = conn.Close()
}

// talk answers one connection's requests, one after another.
func (s *slots) talk(conn net.Conn) {
	defer func() { _ = conn.Close() }() // all that was asked is answered
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 4096), controlLine)
	for {
		if err := conn.SetDeadline(time.Now().Add(controlIdle)); err != nil {
			return
		}
		if !lines.Scan() {
			if errors.Is(lines.Err(), bufio.ErrTooLong) {
				refuse(conn, fmt.Sprintf("a request has at most %d octets", controlLine))
			}
			return
		}
		answer, restart := s.answer(lines.Bytes())
		if err := conn.SetDeadline(time.Now().Add(controlIdle)); err != nil { // installing may have taken long
			return
		}
		err := json.NewEncoder(conn).Encode(answer)
		if restart { // when that was said
			s.restart()
		}
		if err != nil {
			return
		}
	}
}

// answer does what a line asks for, but for the restart.
func (s *slots) answer(line []byte) (answer response, restart bool) {
	r, err := parseRequest(line)
	if err != nil {
		return response{Error: fmt.Sprintf("no request: %v", err)}, false
	}
	if r.Do == "state" { // at any time: what is being written fails its checksum, and the other file counts
		state := s.state()
		return response{OK: true, slotState: &state}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.Do {
	case "install":
		err = s.install(r.Files)
	case "switch":
		err = s.switchOver()
	case "confirm":
		err = s.confirm()
	case "back":
		err = s.back()
	case "factory":
		err = s.factory()
	case "restart":
	default:
		err = fmt.Errorf("do %.20q; want state, install, switch, confirm, back, factory or restart", r.Do)
	}
	if err != nil {
		log.Printf("%.20s: %v", r.Do, err)
		return response{Error: err.Error()}, false
	}
	if r.Do != "install" {
		log.Printf("%s, as gridgate asked", r.Do)
	}
	return response{OK: true}, r.Do == "restart"
}

func parseRequest(line []byte) (request, error) {
	var r request
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	err := d.Decode(&r)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one object in a line")
		}
	}
	if err == nil && r.Do != "install" && r.Files != nil {
		err = fmt.Errorf("%.20q takes no files", r.Do)
	}
	return r, err
}

// listenControl makes the socket: for who runs gridgate, and nobody else.
func listenControl(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}
