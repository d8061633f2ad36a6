package main

import (
	"context"
	"os"

	"gridgate/dlms/dlmstest"
)

// direct is a transport without a line, of client 17.
type direct struct {
	session *dlmstest.Session
	waiting *[][]byte
}

func (d direct) Send(_ context.Context, apdu []byte) error {
	*d.waiting = append(*d.waiting, d.session.Answer(17, apdu)...)
	return nil
}

func (d direct) Receive(_ context.Context, b []byte) ([]byte, error) {
	if len(*d.waiting) == 0 {
		return nil, os.ErrDeadlineExceeded
	}
	b = append(b, (*d.waiting)[0]...)
	*d.waiting = (*d.waiting)[1:]
	return b, nil
}
