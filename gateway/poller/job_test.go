package poller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
)

// soon returns a context for one job.
func soon(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestJobRunsBetweenPolls, at once when none runs, and after the read that does.
func TestJobRunsBetweenPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{slow: map[int]time.Duration{0: 600 * time.Millisecond}}
		run(t, f, 20*time.Second, []time.Duration{time.Second}, func(p *Poller) {
			time.Sleep(5 * time.Second)
			for n := range 40 {
				want := fmt.Errorf("answer %d", n)
				err := p.Do(soon(t, 5*time.Second), func(d drivers.Driver) error {
					if d != f || f.reading {
						t.Errorf("job %d got driver %v, reading %v", n, d, f.reading)
					}
					return want
				})
				if err != want {
					t.Fatalf("job %d: %v, want %v", n, err, want)
				}
				time.Sleep(130 * time.Millisecond)
			}
		})
	})
}

// TestJobsDoNotStarvePolls: however many wait and however long each takes, a poll that is due comes after one.
func TestJobsDoNotStarvePolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		f := &fake{before: func() { order = append(order, "poll") }}
		run(t, f, time.Minute, []time.Duration{time.Second}, func(p *Poller) {
			time.Sleep(10 * time.Second)
			f.change(func() { order = nil })
			for range 12 {
				go p.Do(soon(t, 45*time.Second), func(drivers.Driver) error {
					time.Sleep(1500 * time.Millisecond)
					f.change(func() { order = append(order, "job") })
					return nil
				})
			}
			time.Sleep(40 * time.Second)
		})
		if n := strings.Count(strings.Join(order, " "), "job"); n != 12 {
			t.Fatalf("%d of 12 jobs ran", n)
		}
		if i := strings.Index(strings.Join(order, " "), "job job"); i >= 0 {
			t.Errorf("two jobs without a poll between: %v", order)
		}
	})
}

// TestJobFailsAtOnceWhileDown, with the reason.
func TestJobFailsAtOnceWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{refuse: errors.New("connection refused"), connectIn: 4 * time.Second}
		run(t, f, time.Minute, []time.Duration{time.Second}, func(p *Poller) {
			time.Sleep(30 * time.Second)
			start := time.Now()
			err := p.Do(soon(t, 20*time.Second), func(drivers.Driver) error { t.Error("the job ran"); return nil })
			if !errors.Is(err, drivers.ErrLink) || !strings.Contains(err.Error(), "connection refused") || time.Since(start) != 0 {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
}

// TestJobsAreBounded: sixteen wait, the next is refused, and one whose time is over never runs.
func TestJobsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{slow: map[int]time.Duration{0: 50 * time.Second}}
		errs, ran := make(chan error, 16), 0
		run(t, f, 2*time.Minute, []time.Duration{time.Minute}, func(p *Poller) {
			time.Sleep(10 * time.Second) // into the first read
			for range 16 {
				go func() {
					errs <- p.Do(soon(t, 5*time.Second), func(drivers.Driver) error { ran++; return nil })
				}()
			}
			synctest.Wait()
			if err := p.Do(soon(t, 5*time.Second), func(drivers.Driver) error { ran++; return nil }); err != ErrBusy {
				t.Errorf("job 17: %v", err)
			}
			for range 16 {
				if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a job that waited too long: %v", err)
				}
			}
		})
		if ran != 0 {
			t.Errorf("%d jobs ran", ran)
		}
	})
}

// TestJobIsWaitedFor: Do does not return while its function runs, although its time is over.
func TestJobIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run(t, &fake{}, 30*time.Second, []time.Duration{time.Second}, func(p *Poller) {
			time.Sleep(5 * time.Second)
			ended := false
			err := p.Do(soon(t, time.Second), func(drivers.Driver) error {
				time.Sleep(3 * time.Second)
				ended = true
				return nil
			})
			if err != nil || !ended {
				t.Errorf("%v, ended %v", err, ended)
			}
		})
	})
}

// TestJobTakesTheLinkDown, by an error that says so or by a panic; any other error leaves it.
func TestJobTakesTheLinkDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		var p0 *Poller
		run(t, f, time.Minute, []time.Duration{time.Second}, func(p *Poller) {
			p0 = p
			for n, c := range []struct {
				f    func(drivers.Driver) error
				down bool
			}{
				{func(drivers.Driver) error { return errors.New("refused: read only") }, false},
				{func(drivers.Driver) error { return fmt.Errorf("write: %w", drivers.ErrLink) }, true},
				{func(drivers.Driver) error { panic("library bug") }, true},
			} {
				time.Sleep(5 * time.Second)
				if err := p.Do(soon(t, time.Second), c.f); err == nil {
					t.Errorf("job %d: no error", n)
				}
				synctest.Wait()
				if p.Stats().Up == c.down {
					t.Errorf("job %d: up is %v", n, !c.down)
				}
			}
		})
		if f.connects != 3 {
			t.Errorf("%d connects, want 3", f.connects)
		}
		if err := p0.Do(soon(t, time.Second), nil); !errors.Is(err, ErrOver) {
			t.Errorf("after Run: %v", err)
		}
		if err := p0.Do(t.Context(), nil); err != errNoDeadline {
			t.Errorf("without a deadline: %v", err)
		}
	})
}
