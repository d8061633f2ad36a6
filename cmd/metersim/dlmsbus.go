package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"gridgate/drivers/drivertest"
	"gridgate/drivers/line"
)

// serveBus hangs all meters on one terminal.
func serveBus(ctx context.Context, meters []*dlmsMeter, link string, say func(int, string)) error {
	tty, err := drivertest.Pty()
	if err != nil {
		return err
	}
	defer func() { _ = tty.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = tty.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	path := tty.Path
	if link != "" {
		remove, err := symlink(tty.Path, link)
		if err != nil {
			return err
		}
		defer remove()
		path = link
	}
	for i := range meters {
		say(i, path)
	}
	var stream io.ReadWriter = tty
	if baud := meters[0].pace.baud; baud != 0 {
		own := line.Settings{Baud: baud, DataBits: 8, Parity: 'N', StopBits: 1}
		stream = drivertest.NewUART(ctx, tty, own, terminalSettings(tty, own))
	}
	hub := drivertest.NewHub(stream, len(meters))
	group, serving := errgroup.WithContext(ctx)
	group.Go(func() error { return hub.Run(serving) })
	for i, m := range meters {
		m.pace.baud = 0 // the line has it
		group.Go(func() error { return m.serve(serving, hub.End(i)) })
	}
	err = group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}
