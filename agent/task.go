package agent

import "context"

// task is a goroutine that can be stopped and waited for.
type task struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// start runs run until stop is called. An error that run gives by itself is
// fatal to the agent. The task outlives ctx's cancellation, since the agent
// stops its tasks in an order of its own.
func (a *Agent) start(ctx context.Context, name string, run func(context.Context) error) *task {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &task{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		if err := run(ctx); err != nil {
			a.fatal(name, err)
		}
	}()
	return t
}

// stop ends the task and waits for it. A nil task is stopped already.
func (t *task) stop() {
	if t == nil {
		return
	}
	t.cancel()
	<-t.done
}
