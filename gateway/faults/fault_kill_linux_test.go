package faults

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// commitSlack is what a commit itself may take beyond commit_interval, on a machine at rest: see
// watchMachine for a busy one. The scenario prints the age that it saw.
const commitSlack = 250 * time.Millisecond

// faultKill, F1: SIGKILL at random moments, with the uplink up, refused, silent or half open. Nothing older
// than commit_interval is lost, nothing inverted, no sequence number used twice.
func faultKill(t *testing.T) {
	chance := random(t)
	b := newBed(t, 3, Setup{Words: 8, Commit: "250ms"})
	b.window = 250*time.Millisecond + commitSlack
	b.start()
	b.await(3, 20*time.Second)
	killLoop(b, chance, pick(8, 500), nil)
	r := b.judge()
	t.Logf("FIGURES %s: %d kills", t.Name(), len(b.kills))
	if r.Historical == 0 {
		t.Error("no message was historical: no kill met a backlog, the scenario proves nothing")
	}
}

// killLoop kills and restarts the gateway. between, when not nil, runs while it is dead.
func killLoop(b *bed, chance *rand.Rand, loops int, between func(loop int)) {
	b.t.Helper()
	for i := range loops {
		switch i % 4 {
		case 1:
			b.net.Refuse()
			b.net.Cut()
		case 2:
			b.net.Set(Faults{SilentUp: true, SilentDown: true})
		case 3:
			b.net.Set(Faults{SilentDown: true})
		}
		time.Sleep(time.Duration(300+chance.IntN(1500)) * time.Millisecond)
		b.kill()
		if between != nil {
			between(i)
		}
		b.start()
		if i%4 == 1 { // this backlog has to outlive a second life without an uplink
			time.Sleep(time.Duration(chance.IntN(700)) * time.Millisecond)
			b.kill()
			b.start()
		}
		b.heal()
	}
}

func (b *bed) heal() {
	b.t.Helper()
	must(b.t, b.net.Accept())
	b.net.Set(Faults{})
}

// TestControl breaks a promise on purpose: each scenario has to see it.
func TestControl(t *testing.T) {
	t.Parallel()
	t.Run("F1_store_deleted", controlStoreDeleted)
	t.Run("F11_wrong_order", controlWrongOrder)
	t.Run("F27_everything_restarts", controlEverythingRestarts)
}

// controlStoreDeleted is the gateway without a durable buffer: its directory is deleted at each kill.
func controlStoreDeleted(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2, Setup{Words: 2, Commit: "250ms"})
	b.window = 250*time.Millisecond + commitSlack
	b.patience = 5 * time.Second
	outageAndKill(b, func() { must(t, os.RemoveAll(b.setup.Path)) })
	if r := b.settle(); r.Lost == 0 {
		t.Errorf("the store was deleted in an outage and the checker saw no loss: %s", r)
	}
}

// controlWrongOrder judges a live-first gateway by the promise of oldest-first.
func controlWrongOrder(t *testing.T) {
	t.Parallel()
	b := newBed(t, 2, Setup{Words: 2, Order: "live-first", Extra: []string{"window: 10", "backlog_limit: {messages_per_second: 60}"}})
	outageAndKill(b, func() {})
	b.window = time.Second + commitSlack
	b.judge()
	a := b.account(time.Now())
	a.OldestFirst = true
	if r := a.Check(); r.Inversions == 0 || !strings.Contains(r.Err().Error(), "arrived after") {
		t.Errorf("a backlog came beside live data and the checker saw no inversion: %s", r)
	}
}

// outageAndKill lets a backlog of 4 s grow, kills the gateway, and starts it again with a healthy uplink.
func outageAndKill(b *bed, between func()) {
	b.t.Helper()
	b.start()
	b.await(10, 20*time.Second)
	b.net.Refuse()
	b.net.Cut()
	time.Sleep(4 * time.Second)
	b.kill()
	between()
	b.heal()
	b.start()
	b.await(len(b.sub.Arrivals())+20, 20*time.Second)
}

// faultStoreSetBack, F1: the store is set back to an older state, as by a restored copy. What the gateway says then it says in
// a new epoch, so that no (epoch, seq) has two contents. That the checker would see it is in TestCheckerSees.
func faultStoreSetBack(t *testing.T) {
	b := newBed(t, 2, Setup{Words: 2, Commit: "250ms"})
	old := filepath.Join(b.dir, "old")
	b.start()
	b.await(20, 20*time.Second)
	b.kill()
	if code, out := run("cp", "-a", b.setup.Path, old); code != 0 {
		t.Fatal(out)
	}
	b.start()
	b.await(len(b.sub.Arrivals())+60, 20*time.Second)
	b.kill()
	must(t, os.RemoveAll(b.setup.Path))
	must(t, os.Rename(old, b.setup.Path))
	b.start()
	b.await(len(b.sub.Arrivals())+60, 20*time.Second)
	b.patience = 3 * time.Second
	r := b.settle()
	seqs, epochs := map[uint64]map[string]bool{}, map[string]bool{}
	again := 0 // numbers that were used in more than one epoch
	for _, a := range b.sub.Arrivals() {
		m, err := ParseMessage(a.Payload)
		must(t, err)
		if epochs[m.Epoch] = true; seqs[m.Seq] == nil {
			seqs[m.Seq] = map[string]bool{}
		}
		if seqs[m.Seq][m.Epoch] = true; len(seqs[m.Seq]) == 2 {
			again++
		}
	}
	t.Logf("FIGURES %s: %d epochs, %d numbers in more than one: %s", t.Name(), len(epochs), again, r)
	if r.Conflicts > 0 || again == 0 || len(epochs) != 3 {
		t.Errorf("%d conflicts, %d numbers used again, %d epochs; want none, some, 3: %s", r.Conflicts, again, len(epochs), r)
	}
}
