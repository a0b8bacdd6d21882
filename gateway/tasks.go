package gateway

import (
	"context"
	"errors"
	"sync"
	"time"
)

// tasks are the goroutines that end together, of which each may also end alone.
type tasks struct {
	ctx    context.Context
	cancel context.CancelFunc
	fail   context.CancelCauseFunc // stops the whole gateway and says why
	wg     sync.WaitGroup
}

// task is one goroutine of them.
type task struct {
	cancel context.CancelFunc // tells it to end
	ended  chan struct{}      // closed when it has
}

// over reports whether the task has ended.
func (t *task) over() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

func newTasks(ctx context.Context, fail context.CancelCauseFunc) *tasks {
	ts := &tasks{fail: fail}
	ts.ctx, ts.cancel = context.WithCancel(ctx)
	return ts
}

// start runs f once the tasks before have ended. When f fails, the whole gateway stops.
func (ts *tasks) start(f func(context.Context) error, before ...*task) *task {
	ctx, cancel := context.WithCancel(ts.ctx)
	t := &task{cancel: cancel, ended: make(chan struct{})}
	ts.wg.Go(func() {
		defer close(t.ended)
		defer cancel()
		for _, b := range before {
			<-b.ended
		}
		before = nil // or each generation would hold the one before it
		if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
			ts.fail(err)
		}
	})
	return t
}

// await waits until all tasks have ended by themselves; those that have not after so long, or when hurry ends, are told to end.
func (ts *tasks) await(hurry context.Context, most time.Duration) {
	late, cancel := context.WithTimeout(hurry, most)
	defer cancel()
	defer context.AfterFunc(late, ts.cancel)()
	ts.wg.Wait()
}

// end tells every task to end and waits until all have.
func (ts *tasks) end() {
	ts.cancel()
	ts.wg.Wait()
}
