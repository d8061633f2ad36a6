package main

import (
	"flag"
	"sync/atomic"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/cli"
)

// actOptions are the flags of what is done to meters.
type actOptions struct {
	mode, lose, looks int
	state             string
	wrong             bool
}

func (o *actOptions) flags(fs *flag.FlagSet) {
	fs.IntVar(&o.mode, "breaker-mode", 4, "the control `mode` of the breaker, 0 to 6")
	fs.StringVar(&o.state, "breaker", "connected", "how the breaker begins: connected, disconnected (from afar), or tripped")
	fs.IntVar(&o.lose, "image-lose", 0, "of an image that is transferred, one block in so many gets lost in the meter when it comes for the first time; 0 is none")
	fs.IntVar(&o.looks, "image-looks", 0, "how often the state of an image is read until its verification is over; 0 is at once")
	fs.BoolVar(&o.wrong, "image-wrong", false, "find every image wrong")
}

func (o *actOptions) check() error {
	switch {
	case o.mode < 0 || o.mode > 6:
		return cli.Usagef("dlms: -breaker-mode %d: want 0 to 6", o.mode)
	case o.state != "connected" && o.state != "disconnected" && o.state != "tripped":
		return cli.Usagef("dlms: -breaker %q: want connected, disconnected or tripped", o.state)
	case o.lose < 0 || o.looks < 0:
		return cli.Usagef("dlms: -image-lose, -image-looks: want 0 or more")
	}
	return nil
}

// orUsual gives what meters are like that nothing was said about.
func (o *actOptions) orUsual() *actOptions {
	if o != nil {
		return o
	}
	return &actOptions{mode: 4}
}

// breaker gives the breaker of a meter, whose log hears of what happens to it.
func (o *actOptions) breaker(event func(uint8)) *dlmstest.Breaker {
	b := dlmstest.NewBreaker(byte(o.mode), func(on bool) {
		if on {
			event(eventReconnect)
		} else {
			event(eventDisconnect)
		}
	})
	switch o.state {
	case "tripped":
		b.Trip()
	case "disconnected":
		_, _ = b.Object(switchCode()).Act(1, axdr.Integer(0))
	}
	return b
}

// image gives the image transfer of a meter.
func (o *actOptions) image() dlmstest.Object {
	lost := map[uint32]bool{}
	options := dlmstest.ImageOptions{Looks: o.looks}
	if o.lose > 0 {
		options.Lose = func(block uint32) bool {
			first := !lost[block]
			lost[block] = true
			return first && int(block)%o.lose == 0
		}
	}
	if o.wrong {
		options.Wrong = func([]byte) bool { return true }
	}
	return dlmstest.ImageTransferWith(obis.Code{0, 0, 44, 0, 0, 255}, 200, options)
}

// cut gives a Tamper that is silent about what it was made to do, one time in
// so many, in clear or ciphered. What is ciphered may be the proof of an
// authentication, and counts.
func cut(every int) func(request, frame []byte) []byte {
	const (
		setRequest, actionRequest       = 0xC1, 0xC3
		gloSetRequest, gloActionRequest = 0xC9, 0xCB
		dedSetRequest, dedActionRequest = 0xD1, 0xD3
	)
	var n atomic.Int64
	return func(request, frame []byte) []byte {
		if len(request) == 0 {
			return frame
		}
		switch request[0] {
		case setRequest, actionRequest, gloSetRequest, gloActionRequest, dedSetRequest, dedActionRequest:
			if isOwn(request) || n.Add(1)%int64(every) != 0 {
				return frame
			}
			return nil
		}
		return frame
	}
}

// isOwn says whether a request in clear is the proof of an authentication, a
// method of the association.
func isOwn(request []byte) bool {
	return len(request) > 5 && request[0] == 0xC3 && request[3] == 0 && request[4] == 15
}
