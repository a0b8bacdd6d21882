package powercut

import (
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"millrace/buffer"
)

var (
	statesFlag = flag.Int("powercut.states", 0, "power cuts to try; 0 = 40, or 1200 with MILLRACE_LONG=1")
	seedFlag   = flag.Uint64("powercut.seed", 0, "seed of the workloads and the cuts; 0 = a new one")
)

// TestMain is also the beginning of the workload's process.
func TestMain(m *testing.M) {
	if os.Getenv(planEnv) != "" {
		os.Exit(runWorkload())
	}
	os.Exit(m.Run())
}

// plans returns the workloads: each is another way to use the store on another way to use ext4.
func plans() []plan {
	return []plan{
		{Name: "interval", Mount: "commit=1", MaxSize: 16 << 20, Cycles: 3, Steps: 120},
		{Name: "outage", Mount: "data=ordered", MaxSize: 16 << 20, Cycles: 2, Steps: 80, Outage: true, FirstID: largeID},
		{Name: "strict", Mount: "data=ordered", MaxSize: 16 << 20, Cycles: 3, Steps: 30, Strict: true, Producers: 4, FirstID: largeID},
		{Name: "drop oldest", Mount: "data=writeback", MaxSize: 4 << 20, Cycles: 2, Steps: 300, Hoard: true, Tight: true, FirstID: largeID},
		{Name: "drop newest", Mount: "commit=1", MaxSize: 4 << 20, Cycles: 2, Steps: 300, Hoard: true, WhenFull: buffer.DropNewest, Tight: true, FirstID: largeID},
		{Name: "strict and full", Mount: "data=journal", MaxSize: 4 << 20, Cycles: 2, Steps: 60, Strict: true, Producers: 6, Hoard: true, Tight: true, FirstID: largeID},
	}
}

// campaign is a series of lives of stores, each cut short many times.
type campaign struct {
	*rig
	rng *rand.Rand
	sum *tally
}

// newCampaign returns a campaign whose seed is printed.
func newCampaign(t *testing.T) *campaign {
	r := newRig(t)
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return &campaign{rig: r, rng: newRand(seed, 4), sum: newTally()}
}

// life is a store's time between two power cuts.
type life struct {
	plan   plan
	rec    *recording
	story  *story
	player *player
}

// live runs a workload on a disk.
func (c *campaign) live(p plan, d *disk, s *story) *life {
	c.t.Helper()
	p.Seed = c.rng.Uint64()
	image := append([]byte(nil), d.data...)
	rec := c.record(p, image, d, s)
	return &life{plan: p, rec: rec, story: s, player: newPlayer(rec)}
}

// checkTime is how long a look at one store may take, on however slow a machine.
const checkTime = 3 * time.Minute

// cut tries one power cut, the disk of which remains in c.image for the moment.
func (c *campaign) cut(l *life, at crash, again bool, sum *tally) *verdict {
	var v *verdict
	volatile, kept := l.player.build(c.image, at)
	repaired, err := c.open(l.plan.Mount, func(dir string) {
		done := make(chan *verdict, 1)
		go func() { done <- check(dir, &l.plan, l.story, at, again) }()
		select {
		case v = <-done:
		case <-time.After(checkTime):
			c.keep(l.player, at)
			c.t.Fatalf("%s: %s: the store is busy opening or reading for %v", l.plan.Name, at, checkTime)
		}
	})
	if v == nil {
		v = &verdict{}
	}
	if v.unmounted = errors.Is(err, errFileSystem); err != nil && !(v.unmounted && at.manner == tearSector) {
		v.problem("file system: %w", err) // ext4 relies on whole sectors, we do not
	}
	v.repaired = repaired
	sum.add(v, at, volatile, kept)
	return v
}

// cutOften tries n power cuts of a life. None may break a promise. It returns the last but one of those
// that the file system survived without mending, and what was found then.
func (c *campaign) cutOften(l *life, n int) (last crash, v *verdict) {
	sum := newTally()
	for i, at := range chooseCrashes(l.rec, l.story.phases, n, c.rng) {
		now := c.cut(l, at, i%4 == 0, sum)
		if len(now.problems) > 0 {
			c.t.Errorf("%s: %s: %v", l.plan.Name, at, errors.Join(now.problems...))
			c.keep(l.player, at)
			break
		}
		if !now.repaired && (v == nil || i < n-1) {
			last, v = at, now
		}
	}
	c.t.Logf("%s, %d requests, %d records: %s", l.plan.Name, len(l.rec.log), len(l.story.facts), sum)
	c.sum.merge(sum)
	return last, v
}

// goOn lets a store live on from the disk that a power cut left.
func (c *campaign) goOn(l *life, at crash, v *verdict) *life {
	p := l.plan
	p.Recovers, p.Cycles, p.Steps, p.FirstID = true, 1, p.Steps/3, p.FirstID+1_000_000
	image := make([]byte, diskSize)
	newPlayer(l.rec).build(image, at)
	return c.live(p, newDisk(image), l.story.after(at.at, v.found))
}

const maxFailed = 5 // power cuts gone wrong after which a campaign ends

// TestPowerCut cuts the power of a store in every phase of its life, the recovery from an earlier power
// cut included: nothing promised may be lost.
func TestPowerCut(t *testing.T) {
	states := *statesFlag
	if states == 0 {
		states = 40
		if os.Getenv("MILLRACE_LONG") != "" {
			states = 1200
		}
	}
	c := newCampaign(t)
	list := plans()
	perLife := min(max(states/(2*len(list)), 5), 30)
	start := time.Now()
	for n := 0; c.sum.states < states && c.sum.failed < maxFailed; n++ {
		p := list[n%len(list)]
		l := c.live(p, newDisk(c.empty), newStory(p.Strict))
		at, v := c.cutOften(l, perLife)
		for depth := range 1 + perLife/10 { // every second store lives on, some of them through several power cuts
			if v == nil || (n+n/len(list))%2 == 1 || depth > 0 && c.rng.IntN(2) == 0 {
				break
			}
			l = c.goOn(l, at, v)
			at, v = c.cutOften(l, perLife)
		}
	}
	t.Logf("in all, in %v: %s", time.Since(start).Round(time.Second), c.sum)
}

// TestControls shows that the test can see a loss: on a drive that ignores flushes, and for a store that
// does not sync, promises must be broken.
func TestControls(t *testing.T) {
	for _, name := range []string{"drive that ignores flushes", "store without fsync"} {
		t.Run(name, func(t *testing.T) {
			c := newCampaign(t)
			p := plans()[2] // strict, where every record is a promise
			p.Cycles, p.Hoard = 1, true
			p.NoSync = name == "store without fsync"
			for life := 0; c.sum.lost == 0 && life < 10; life++ { // the kernel may write what nobody synced in time for one life's power cuts
				d := newDisk(c.empty)
				d.lying = !p.NoSync
				l := c.live(p, d, newStory(p.Strict))
				for _, at := range chooseCrashes(l.rec, l.story.phases, 8, c.rng) {
					if v := c.cut(l, at, false, c.sum); len(v.problems) > 0 {
						t.Logf("%s: as it must: %v", at, v.problems[0])
					}
				}
			}
			t.Log(c.sum)
			if c.sum.lost == 0 {
				t.Errorf("nothing was lost: this test could not see a loss")
			}
		})
	}
}
