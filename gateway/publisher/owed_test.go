package publisher

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"millrace/gateway/link/mqtt/brokersim"
)

// deaf appends n records that a connected broker does not take. They are committed meanwhile, as live ones.
func deaf(r *rig, n int) {
	r.broker.SetFaults(brokersim.Faults{Freeze: true})
	for range n {
		r.next()
	}
	time.Sleep(9 * time.Second)
}

// outage cuts the link and appends n records.
func outage(r *rig, l *link, n int) {
	l.set(func(l *link) { l.err = errors.New("down") })
	r.broker.CutAll()
	for range n {
		time.Sleep(5 * time.Millisecond)
		r.next()
	}
}

// up brings the link back, and appends n fresh records, one each 10 ms, once a session is there.
func up(r *rig, l *link, n int) {
	r.broker.SetFaults(brokersim.Faults{AckDelay: 10 * time.Millisecond, MaxPayload: 1000})
	l.set(func(l *link) { l.err = nil })
	for sessions := r.p.Stats().Sessions; r.p.Stats().Sessions == sessions; time.Sleep(5 * time.Millisecond) {
		r.next()
	}
	for range n {
		time.Sleep(10 * time.Millisecond)
		r.next()
	}
}

// settle waits until the backlog is gone and holds the account to the order of live and of historical records.
func settle(r *rig) {
	time.Sleep(6 * time.Hour)
	r.delivered()
	if h := r.got.historical; h == 0 || h == r.got.count() {
		r.t.Errorf("%d historical of %d: the test tests nothing", h, r.got.count())
	}
}

// TestOwedIsLong: more live records than are looked at in one go were not acknowledged.
func TestOwedIsLong(t *testing.T) {
	inBubble(t, rigOptions{publisher: Options{Window: 8}}, func(r *rig, l *link) {
		time.Sleep(time.Second)
		deaf(r, 2*maxScan)
		outage(r, l, 2000)
		up(r, l, 500)
		settle(r)
	})
}

// TestOwedTwice: the session that was to bring what the one before left behind is lost too.
func TestOwedTwice(t *testing.T) {
	inBubble(t, rigOptions{publisher: Options{Window: 8}}, func(r *rig, l *link) {
		time.Sleep(time.Second)
		deaf(r, 300)
		outage(r, l, 2000)
		up(r, l, 10)
		deaf(r, 50)
		outage(r, l, 2000)
		up(r, l, 500)
		settle(r)
	})
}

// TestOwedIsFoundAfterARestart: islands of live records lie anywhere in the backlog of an earlier process.
func TestOwedIsFoundAfterARestart(t *testing.T) {
	inBubble(t, rigOptions{publisher: Options{Window: 8, BacklogMessages: 10}}, func(r *rig, l *link) {
		time.Sleep(time.Second)
		for range 3 {
			deaf(r, 20)
			outage(r, l, maxScan+2000)
			up(r, l, 50)
		}
		l.restart()
		up(r, l, 500)
		settle(r)
	})
}

// TestOrderAtRandom: links are lost and come back, and the gateway is restarted, at random, with and without messages
// that the broker refuses.
func TestOrderAtRandom(t *testing.T) {
	for i := range 4 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed, " poison ", i%2), func(t *testing.T) {
			chance := rand.New(rand.NewPCG(seed, 0))
			inBubble(t, rigOptions{publisher: Options{Window: 1 + chance.IntN(20)}, tags: 100}, func(r *rig, l *link) {
				if i%2 == 1 {
					r.chance = chance
				}
				time.Sleep(time.Second)
				for range 12 {
					if chance.IntN(3) > 0 {
						deaf(r, chance.IntN(100))
					}
					outage(r, l, chance.IntN(1500))
					if chance.IntN(3) == 0 {
						l.restart()
					}
					up(r, l, chance.IntN(30))
					if i%2 == 1 && chance.IntN(2) == 0 {
						time.Sleep(time.Duration(chance.IntN(120)) * time.Second)
					}
				}
				settle(r)
			})
		})
	}
}
