package publisher

import (
	"errors"
	"testing"
	"time"

	"millrace/gateway/link/mqtt/brokersim"
)

const poisonTopic = "telemetry/shop/press-2/+"

// poll appends a record of each device every 100 ms, for so long, and returns how long the slowest record of the
// sound devices took.
func poll(r *rig, d time.Duration) (slowest time.Duration) {
	type sent struct {
		seq uint64
		at  time.Time
	}
	var waiting []sent
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		r.append(1, 3)
		for _, device := range []int{0, 2} {
			waiting = append(waiting, sent{r.append(device, 3), time.Now()})
		}
		r.got.mu.Lock()
		for len(waiting) > 0 && r.got.payloads[waiting[0].seq] != "" {
			waiting = waiting[1:]
		}
		r.got.mu.Unlock()
		if len(waiting) > 0 {
			slowest = max(slowest, time.Since(waiting[0].at))
		}
	}
	return slowest
}

// TestPoisonDevice: the broker closes the connection on every message of one device, for some minutes. It costs the
// others some seconds once and a moment now and then, and the device nothing but what was tried.
func TestPoisonDevice(t *testing.T) {
	for _, order := range []Order{LiveFirst, OldestFirst} {
		inBubble(t, rigOptions{publisher: Options{Order: order}}, func(r *rig, l *link) {
			poll(r, time.Minute)
			r.broker.SetFaults(brokersim.Faults{CloseTopic: poisonTopic})
			begin := r.p.Stats().Sessions
			if slowest := poll(r, time.Minute); slowest > 50*time.Second {
				t.Errorf("order %d: the others waited %v at first", order, slowest)
			}
			if slowest := poll(r, 5*time.Minute); slowest > 2*time.Second {
				t.Errorf("order %d: the others waited %v later", order, slowest)
			}
			s := r.p.Stats()
			if n := s.Sessions - begin; n > 32 { // data and gap records: 8 closings at first, then after 1, 2, 4, 8 … min
				t.Errorf("order %d: %d connections lost in six minutes", order, n)
			}
			if s.Rejected == 0 || s.Rejected > 16 || len(s.Suspects) != 2 || s.Suspects[0].Device != "press-2" || s.Held < 3000 || s.LiveLag > 1 {
				t.Errorf("order %d: stats %+v", order, s)
			}
			r.broker.SetFaults(brokersim.Faults{})
			poll(r, 9*time.Minute)
			time.Sleep(time.Minute)
			r.delivered()
			if _, _, _, dropped := r.ledger(); r.got.sum() != r.sent-dropped || len(r.p.Stats().Suspects) != 0 {
				t.Errorf("order %d: dropped %d readings, received %d of %d; %+v", order, dropped, r.got.sum(), r.sent, r.p.Stats())
			}
		})
	}
}

// TestPoisonNowAndThen: one message of a device in 200 is poison. All others arrive, and each costs two connections.
func TestPoisonNowAndThen(t *testing.T) {
	inBubble(t, rigOptions{tags: 100}, func(r *rig, l *link) {
		r.broker.SetFaults(brokersim.Faults{MaxPayload: 1000})
		for i := range 1200 {
			n := 3
			if i%200 == 100 {
				n = 100
			}
			r.append(1, n)
			if slowest := poll(r, time.Second); i > 200 && slowest > 2*time.Second {
				t.Fatalf("the others waited %v", slowest)
			}
		}
		time.Sleep(time.Hour)
		r.delivered()
		s := r.p.Stats()
		if s.Rejected != 6 || s.Sessions > 8+3*6 {
			t.Errorf("%d rejected, want 6; %d sessions", s.Rejected, s.Sessions)
		}
	})
}

// TestTooManyHeld: more is held back than is remembered. What is too much is counted and told, as long as the broker
// takes other messages. While it takes none, nothing is given up.
func TestTooManyHeld(t *testing.T) {
	inBubble(t, rigOptions{}, func(r *rig, l *link) {
		time.Sleep(time.Second)
		r.broker.SetFaults(brokersim.Faults{CloseTopic: "#"})
		r.broker.CutAll()
		for range maxHeld + 100 {
			r.append(1, 3)
		}
		time.Sleep(30 * time.Minute)
		alone := r.p.Stats()
		if alone.Rejected == 0 || alone.Rejected > 20 || alone.Held > maxHeld {
			t.Errorf("a broker that refuses everything: %+v", alone)
		}
		r.broker.SetFaults(brokersim.Faults{CloseTopic: "telemetry/shop/press-2/fast"})
		for range 100 {
			r.append(0, 3)
			time.Sleep(time.Second)
		}
		r.await("a quarantine of what is too much", func() bool { return r.p.Stats().Rejected >= 100 })
		s := r.p.Stats()
		if s.Held > maxHeld || s.Rejected > 130 || s.LiveLag > 1 {
			t.Errorf("a broker that refuses one device: %+v", s)
		}
		if told := s.Rejected - alone.Rejected; told < 95 || told > 130 {
			t.Errorf("%d given up, want those that are too many", told)
		}
		r.broker.SetFaults(brokersim.Faults{})
		time.Sleep(time.Hour)
		r.delivered()
		told := 0
		for _, g := range r.got.gaps {
			told += int(g.Gap.Count)
		}
		if _, _, _, dropped := r.ledger(); dropped != told || dropped == 0 || r.got.sum() != r.sent-dropped {
			t.Errorf("dropped %d, told of %d, received %d of %d", dropped, told, r.got.sum(), r.sent)
		}
	})
}

// TestTryInAnOutage: a line that fails while a suspect is tried condemns nothing.
func TestTryInAnOutage(t *testing.T) {
	inBubble(t, rigOptions{tags: 100}, func(r *rig, l *link) {
		r.broker.SetFaults(brokersim.Faults{MaxPayload: 1000})
		r.append(1, 100)
		for len(r.p.Stats().Suspects) == 0 {
			poll(r, time.Second)
		}
		for r.p.Stats().Suspects != nil && r.p.Stats().Suspects[0].Failed < 3 {
			l.set(func(l *link) { l.mute = true }) // everything is silent when the try comes
			poll(r, 15*time.Second)
			l.set(func(l *link) { l.mute, l.err = false, errors.New("down") })
			r.broker.CutAll()
			poll(r, time.Second)
			l.set(func(l *link) { l.err = nil })
			poll(r, time.Duration(5+len(r.p.Stats().Suspects))*time.Second)
		}
		poll(r, 20*time.Minute)
		time.Sleep(time.Minute)
		r.delivered()
		if s := r.p.Stats(); s.Rejected != 1 || s.Suspects != nil {
			t.Errorf("stats %+v", s)
		}
	})
}
