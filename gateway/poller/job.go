package poller

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"millrace/drivers"
)

const maxJobs = 16 // that may wait

// The errors of Do, besides those of its function and context and those that wrap drivers.ErrLink.
var (
	ErrBusy = errors.New("16 jobs wait for the device already; try again later")
	ErrOver = errors.New("the connection is not polled any more")

	errNoDeadline = errors.New("BUG: a job for the poller without a deadline")
)

// job is one call of Do.
type job struct {
	ctx   context.Context
	f     func(drivers.Driver) error
	taken atomic.Bool // by Run, or by Do when it gives the job up: f runs for the first only
	done  chan error
}

// Do calls f with the driver between two polls, ahead of the next one and never during one, and returns its error. At most
// one job runs between two polls that are due. No poll of the connection runs meanwhile, so ctx must have a deadline, and f
// must end soon after ctx does: what takes long is done in portions. While the link is down Do fails at once with an
// error that wraps drivers.ErrLink and says why; when 16 jobs wait, with ErrBusy. An error of f that wraps drivers.ErrLink
// takes the link down. When Do returns, f does not run any more. It may be called at any time.
func (p *Poller) Do(ctx context.Context, f func(drivers.Driver) error) error {
	if _, ok := ctx.Deadline(); !ok {
		return errNoDeadline
	}
	if err := p.down(); err != nil {
		return err
	}
	j := &job{ctx: ctx, f: f, done: make(chan error, 1)}
	select {
	case p.jobs <- j:
	default:
		return ErrBusy
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return j.giveUp(ctx.Err())
	case <-p.over:
		return j.giveUp(ErrOver)
	}
}

// giveUp returns the reason when f has not begun; else it waits for f.
func (j *job) giveUp(reason error) error {
	if j.taken.CompareAndSwap(false, true) {
		return reason
	}
	return <-j.done
}

// down returns why no job can run now, nil when one can.
func (p *Poller) down() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link.up {
		return nil
	}
	return fmt.Errorf("%w: %s", drivers.ErrLink, p.link.reason)
}

// runWaiting runs one job if any waits.
func (p *Poller) runWaiting() bool {
	select {
	case j := <-p.jobs:
		p.run(j)
		return true
	default:
		return false
	}
}

func (p *Poller) run(j *job) {
	if !j.taken.CompareAndSwap(false, true) {
		return // given up
	}
	p.reading.begin(nil)
	defer p.reading.end()
	begin := time.Now()
	defer func() { end := time.Now(); p.held(hold{end: end, took: end.Sub(begin)}) }()
	err := p.down()
	if err == nil {
		err = j.ctx.Err()
	}
	if err == nil {
		p.jobLast = true
		err = guard(func() error { return j.f(p.driver) })
		if err == nil {
			p.link.used = time.Now()
		}
		if errors.Is(err, drivers.ErrLink) && !errors.Is(err, drivers.ErrAbsent) || errors.Is(err, errPanic) {
			p.linkDown(err)
		}
	}
	j.done <- err
}
