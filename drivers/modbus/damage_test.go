package modbus

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

// damagedLine is a device of which a share of the answers, of 100, comes to harm by chance.
type damagedLine struct {
	*bench
	share int
	off   atomic.Bool
}

// randomHarm is how an answer comes to harm by chance, and on which transport.
var randomHarm = []struct{ name, transport string }{
	{"lost", "tcp"}, {"lost", "rtuovertcp"}, {"damaged", "tcp"}, {"damaged", "rtuovertcp"}, {"exception 11", "tcp"},
}

func newDamagedLine(t *testing.T, way, transport string, share int, seed uint64, words []string) *damagedLine {
	r := rand.New(rand.NewPCG(seed, 1))
	l := &damagedLine{share: share}
	strikes := func(modbussim.Request) bool { return !l.off.Load() && r.IntN(100) < l.share }
	o := modbussim.Options{Transport: transport}
	if way == "damaged" && transport != "tcp" {
		o.Wire = func(to io.Writer, frame []byte) bool {
			if strikes(modbussim.Request{}) {
				frame[r.IntN(len(frame))] ^= 1 << r.IntN(8)
			}
			_, err := to.Write(frame)
			return err == nil
		}
	}
	l.bench = newBubbleBench(t, o, 1, tags(words...)).open(t)
	switch {
	case way == "lost":
		l.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: strikes})
	case way == "exception 11":
		l.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 11, Match: strikes})
	case transport == "tcp":
		l.sim.Inject(modbussim.Fault{Kind: modbussim.ShortValues, Match: strikes})
	}
	return l
}

// harmed is what becomes of the polls of one such line.
type harmed struct {
	good, requests, after float64 // readings of 100; requests a poll, and of one when nothing comes to harm any more
	took                  time.Duration
	learned               map[string]string
}

func (l *damagedLine) polls(t *testing.T, n int) (h harmed) {
	bad, all := 0, 0
	for range n {
		start := time.Now()
		h.requests += float64(l.requests(func() {
			b, err := l.read(drivers.Ref{})
			if wrong(err) {
				t.Fatal(err)
			}
			bad += b
			all += len(l.conn.Devices[0].Groups[0].Tags)
		})) / float64(n)
		h.took += time.Since(start) / time.Duration(n)
		time.Sleep(max(0, time.Second-time.Since(start)))
	}
	h.good = 100 - 100*float64(bad)/float64(all)
	h.learned = l.driver.Learned(0)
	l.off.Store(true)
	for range 20 {
		l.read(drivers.Ref{})
		time.Sleep(time.Second)
	}
	h.after = float64(l.requests(func() { l.read(drivers.Ref{}) }))
	return h
}

// TestDamageIsNotAmplified has a share of the answers lost or damaged by chance.
func TestDamageIsNotAmplified(t *testing.T) {
	for _, list := range []struct {
		name  string
		words []string
		polls int // of each, 300 with -long: a poll of 200 islands is up to 300 requests
	}{{"1,000 registers", run("holding", 0, 1000), 150}, {"100 registers", run("holding", 0, 100), 300}, {"200 islands", islands(200, 20), 100}} {
		t.Run(list.name, func(t *testing.T) {
			t.Parallel() // with its like: no clock of a machine is near
			damageIsNotAmplified(t, list.name, list.words, list.polls)
		})
	}
}

func damageIsNotAmplified(t *testing.T, name string, words []string, polls int) {
	for _, w := range randomHarm {
		for _, share := range []int{0, 5, 10, 20, 30} {
			n := polls
			switch {
			case *long:
				n = 300
			case share == 0:
				n = 20 // one is as the other
			}
			bubble(t, func(t *testing.T) {
				h := newDamagedLine(t, w.name, w.transport, share, 7, words).polls(t, n)
				p := float64(share) / 100
				single := 1 - p*p // of a request that is made twice
				if w.transport != "tcp" {
					single = 1 - p*(1-(1-p)*(1-p)) // and the second time after a fence
				}
				if least := 100*single*single*single - float64(share)/2; h.good < least || len(words) <= 1000 && w.transport == "tcp" && h.after > 50 {
					t.Errorf("%s, %s, %s, %d %%: %.1f %% good, want %.1f; %.0f requests when all is well", name, w.transport, w.name, share, h.good, least, h.after)
				}
				t.Log(fmt.Sprintf("FIGURES %s, %s, %s, %d %%: %.1f %% good, %.1f requests a poll, %.0f when all is well, %v a poll, learned %v", name, w.transport, w.name, share, h.good, h.requests, h.after, h.took.Round(time.Millisecond), h.learned))
			})
		}
	}
}

// TestLossTeachesNoPause loses answers of devices that need no pause, from the first request on, and in lists of one request and of several.
func TestLossTeachesNoPause(t *testing.T) {
	for _, share := range []int{15, 30} {
		for seed := range uint64(40) {
			for _, words := range [][]string{run("holding", 0, 10), blocksOf(5)} {
				for _, close := range []string{"false", "true"} {
					bubble(t, func(t *testing.T) {
						r := rand.New(rand.NewPCG(seed, uint64(share)))
						retries := fmt.Sprint(seed % 4 % 3) // 0, 1, 2, 0
						b := newBubbleBench(t, modbussim.Options{}, 1, tags(words...)).option("close_after_poll", close).option("retries", retries).open(t)
						b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: func(modbussim.Request) bool { return r.IntN(100) < share }})
						for n := range 60 {
							b.read(drivers.Ref{})
							if l := b.driver.Learned(0); l != nil {
								t.Fatalf("%d %% lost, seed %d, %d tags: poll %d: learned %q", share, seed, len(words), n, l)
							}
							time.Sleep(200 * time.Millisecond)
						}
					})
				}
			}
		}
	}
}
