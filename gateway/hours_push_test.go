package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// source is equipment with one value, which it counts up at moments of its own and pushes to whom has subscribed, as a server of OPC UA does: it
// samples some time after the subscription stands, sends what it has each half second, keeps ten values until then, and is heard of no more when it falls silent.
type source struct {
	h      *hours
	device string

	mu   sync.Mutex
	rng  *rand.Rand
	n    int
	past []telemetry.Reading
	sub  *subscription
}

// subscription is one of a source's, guarded by its mu.
type subscription struct {
	pushes  chan drivers.Push
	group   drivers.Ref
	samples bool // it does, from now on
	queue   []telemetry.Reading
	lost    int
	stop    context.CancelFunc
}

const sourceQueue = 10

// run counts until ctx ends.
func (s *source) run(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		pause := time.Duration(s.rng.ExpFloat64() * float64(400*time.Millisecond))
		s.mu.Unlock()
		time.Sleep(pause)
		s.mu.Lock()
		s.n++
		now := time.Now()
		s.h.plant.mu.Lock()
		s.h.given[s.device][s.n] = now
		s.h.plant.mu.Unlock()
		s.past = append(s.past, telemetry.Reading{Value: telemetry.Int(int64(s.n)), Time: now.UnixMicro()})
		if s.sub != nil && s.sub.samples {
			s.sample(s.sub)
		}
		s.mu.Unlock()
	}
}

// sample queues the value. mu is held.
func (s *source) sample(q *subscription) {
	if len(s.past) == 0 {
		return
	}
	if len(q.queue) == sourceQueue {
		q.queue = append(q.queue[:0], q.queue[1:]...)
		q.lost++
	}
	q.queue = append(q.queue, s.past[len(s.past)-1])
}

func (s *source) silent() bool {
	s.h.plant.mu.Lock()
	defer s.h.plant.mu.Unlock()
	return s.h.plant.silent(s.device)
}

// publish sends what there is each half second. A silence of three seconds is noticed, and is the end of the link.
func (s *source) publish(ctx context.Context, q *subscription, sampling time.Duration) {
	defer close(q.pushes)
	begun, heard := time.Now(), time.Now()
	for tick := 0; ctx.Err() == nil; tick++ {
		time.Sleep(500 * time.Millisecond)
		s.mu.Lock()
		if !q.samples && time.Since(begun) >= sampling {
			q.samples = true
			s.sample(q)
		}
		silent := s.silent()
		switch {
		case ctx.Err() != nil:
		case silent && time.Since(heard) > 3*time.Second:
			select {
			case q.pushes <- drivers.Push{Err: errors.New("it has fallen silent")}:
			default:
			}
			q.stop()
		case silent:
		case len(q.queue) > 0 || tick%6 == 0:
			p := drivers.Push{Group: q.group, Readings: q.queue, Lost: q.lost, At: time.Now()}
			select {
			case q.pushes <- p:
				q.queue, q.lost, heard = nil, 0, time.Now()
			default: // the gateway has no time for it
			}
		default:
			heard = time.Now()
		}
		s.mu.Unlock()
	}
}

// pusher is the driver of a source.
type pusher struct {
	s   *source
	sub *subscription
}

func (p *pusher) Connect(ctx context.Context) error {
	if p.s.silent() {
		return errors.New("no route to host")
	}
	p.sub = &subscription{pushes: make(chan drivers.Push, 4)}
	return nil
}

func (p *pusher) Subscribe(_ context.Context, g drivers.Ref) (bool, error) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var ctx context.Context
	p.sub.group = g
	ctx, p.sub.stop = context.WithCancel(context.Background())
	s.sub = p.sub
	go s.publish(ctx, p.sub, time.Duration(s.rng.IntN(2000))*time.Millisecond)
	return true, nil
}

func (p *pusher) Pushed() <-chan drivers.Push { return p.sub.pushes }

func (p *pusher) Read(context.Context, drivers.Ref, []telemetry.Reading) ([]telemetry.Reading, error) {
	return nil, drivers.ErrDevice
}

func (p *pusher) Close() error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.sub != nil && p.sub.stop != nil {
		p.sub.stop()
	}
	return nil
}

// historian is the driver of a source that keeps all it had.
type historian struct{ *pusher }

func (p historian) Backfill(context.Context) (bool, time.Duration, time.Duration, error) {
	return true, 0, 0, nil
}

// History gives ten values at a time, and takes a fifth of a second for these.
func (p historian) History(ctx context.Context, _ drivers.Ref, from, to int64, emit func([]telemetry.Reading) error) error {
	for {
		time.Sleep(200 * time.Millisecond)
		if p.s.silent() {
			return errors.New("it has fallen silent")
		}
		p.s.mu.Lock()
		some, most := []telemetry.Reading(nil), 10
		for _, r := range p.s.past {
			if r.Time >= from && r.Time < to && len(some) < most {
				some = append(some, r)
			}
		}
		p.s.mu.Unlock()
		if len(some) == 0 {
			return nil
		}
		from = some[len(some)-1].Time + 1
		if err := errors.Join(ctx.Err(), emit(some)); err != nil {
			return err
		}
	}
}
