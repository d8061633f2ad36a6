package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"gridgate/agent"
	"gridgate/agent/status"
	"gridgate/agent/vault"
	"gridgate/buffer"
	"gridgate/internal/meter"
)

// A buffer belongs to one process at a time. Where that is an agent, what it has
// is asked of the agent.

// orAsk gives err, of a look at the file, or asks the agent when the file is one's
// that runs.
func (f *bufferFlags) orAsk(err error, ask func() error) error {
	var inUse *buffer.InUseError
	if !errors.As(err, &inUse) {
		return err
	}
	if asked := ask(); asked != nil {
		return fmt.Errorf("%w; and asked for it: %w (name its control socket with -control)", err, asked)
	}
	f.open = true
	return nil
}

func (f *bufferFlags) stat(ctx context.Context) (st buffer.Stat, dropped []buffer.Dropped, err error) {
	if st, err = buffer.Inspect(f.dir); err == nil {
		dropped, err = buffer.DroppedDir(f.dir)
	}
	err = f.orAsk(err, func() error {
		b, err := status.AskReadings(ctx, f.control, f.dir)
		if err != nil {
			return err
		}
		var all agent.BufferStat
		err = json.Unmarshal(b, &all)
		st, dropped = all.Stat, all.Dropped
		return err
	})
	return st, dropped, err
}

// rows calls do for every row that is wanted.
func (f *bufferFlags) rows(ctx context.Context, q buffer.Query, do func(sequence uint64, r *meter.Row) error) error {
	return f.orAsk(buffer.QueryDir(f.dir, q, do), func() error {
		r, err := status.Archive(ctx, f.control, f.dir, f.wanted(q))
		if err != nil {
			return err
		}
		return errors.Join(buffer.QueryArchive(r, q, do), r.Close())
	})
}

func (f *bufferFlags) wanted(q buffer.Query) status.ReadingsQuery {
	return status.ReadingsQuery{
		Lane: f.lane, From: q.From, To: q.To, Waiting: f.waiting, Site: f.site, Gateway: f.gateway,
	}
}

// export writes an archive of all, or of what waits.
func (f *bufferFlags) export(ctx context.Context, w *bufio.Writer) (info buffer.ArchiveInfo, err error) {
	info, err = buffer.Export(f.dir, w, buffer.ExportOptions{
		Site: f.site, Gateway: f.gateway, Made: time.Now().UnixMilli(), Waiting: f.waiting,
		Key: agent.ArchiveKey(vault.Open(agent.VaultDir(f.dir), f.getenv)),
	})
	err = f.orAsk(err, func() error {
		r, err := status.Archive(ctx, f.control, f.dir, f.wanted(buffer.Query{}))
		if err != nil {
			return err
		}
		// What came is read as it is written: an archive without its end is none.
		info, err = buffer.ReadArchive(io.TeeReader(r, w), func(*buffer.ArchiveHead, meter.Span) error { return nil })
		return errors.Join(err, r.Close())
	})
	return info, err
}
