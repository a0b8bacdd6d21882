package powercut

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sort"
	"strings"
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
		{Name: "strict", Mount: "data=ordered", MaxSize: 16 << 20, Cycles: 3, Steps: 40, Strict: true, Producers: 4},
		{Name: "drop oldest", Mount: "data=writeback", MaxSize: 4 << 20, Cycles: 2, Steps: 1100, Hoard: true, Tight: true},
		{Name: "drop newest", Mount: "commit=1", MaxSize: 4 << 20, Cycles: 2, Steps: 1100, Hoard: true, WhenFull: buffer.DropNewest, Tight: true},
		{Name: "strict and full", Mount: "data=journal", MaxSize: 4 << 20, Cycles: 2, Steps: 300, Strict: true, Producers: 6, Hoard: true, Tight: true},
	}
}

// campaignSeed returns the seed of this run.
func campaignSeed(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return seed
}

// tally adds up what a campaign found.
type tally struct {
	states, required, excused, lost, repaired, volatile, kept, failed int
	phases                                                            map[string]int
	manners                                                           map[manner]int
}

func (a *tally) String() string {
	var parts []string
	for name, n := range a.phases {
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	sort.Strings(parts)
	return fmt.Sprintf("%d power cuts (%s): %d promises held against them, %d broken; %d dropped for want of room; "+
		"%d of %d unflushed sectors kept; e2fsck needed %d times; %d states with problems",
		a.states, strings.Join(parts, ", "), a.required, a.lost, a.excused, a.kept, a.volatile, a.repaired, a.failed)
}

func (a *tally) add(v *verdict, c crash) {
	a.states++
	a.required += v.required
	a.excused += v.excused
	a.lost += v.lost
	a.phases[c.phase]++
	a.manners[c.manner]++
	if len(v.problems) > 0 {
		a.failed++
	}
}

func newTally() *tally { return &tally{phases: map[string]int{}, manners: map[manner]int{}} }

// cutAll tries power cuts on a recording.
func (r *rig) cutAll(p *plan, rec *recording, s *story, crashes []crash, a *tally, bad func(crash, *verdict)) {
	player := newPlayer(rec)
	for i, c := range crashes {
		v := r.cut(player, p, s, c, i%4 == 0, a)
		if len(v.problems) > 0 {
			bad(c, v)
		}
	}
}

// cut tries one power cut.
func (r *rig) cut(player *player, p *plan, s *story, c crash, again bool, a *tally) *verdict {
	var v *verdict
	volatile, kept := player.build(r.image, c)
	a.volatile, a.kept = a.volatile+volatile, a.kept+kept
	repaired, err := r.open(p.Mount, func(dir string) { v = check(dir, p, s, c.at, again) })
	if v == nil {
		v = &verdict{}
	}
	if err != nil {
		v.problem("file system: %w", err)
	}
	if repaired {
		a.repaired++
	}
	a.add(v, c)
	return v
}

// TestPowerCut cuts the power of a store in every phase of its life: nothing promised may be lost.
func TestPowerCut(t *testing.T) {
	states := *statesFlag
	if states == 0 {
		states = 40
		if os.Getenv("MILLRACE_LONG") != "" {
			states = 1200
		}
	}
	r := newRig(t)
	seed := campaignSeed(t)
	rng := newRand(seed, 4)
	all := newTally()
	const perLife = 40
	list := plans()
	for n := 0; all.states < states; n++ {
		p := list[n%len(list)]
		p.Seed, p.FirstID = rng.Uint64(), 1
		per := min(perLife, max(states/len(list), 1), states-all.states)
		start := time.Now()
		d, s := newDisk(r.empty), newStory(p.Strict)
		rec := r.record(p, r.empty, d, s)
		recorded := time.Since(start)
		a := newTally()
		r.cutAll(&p, rec, s, chooseCrashes(rec, s.phases, per, rng), a, func(c crash, v *verdict) {
			t.Errorf("%s: %s: %v", p.Name, c, errors.Join(v.problems...))
		})
		t.Logf("%s: %d requests, %d records, recorded in %v, %v", p.Name, len(rec.log), len(s.facts), recorded, time.Since(start)-recorded)
		t.Log(a)
		all.merge(a)
		if t.Failed() {
			break
		}
	}
	t.Logf("in all %s", all)
}

func (a *tally) merge(b *tally) {
	a.states, a.required, a.excused, a.lost = a.states+b.states, a.required+b.required, a.excused+b.excused, a.lost+b.lost
	a.repaired, a.volatile, a.kept, a.failed = a.repaired+b.repaired, a.volatile+b.volatile, a.kept+b.kept, a.failed+b.failed
	for name, n := range b.phases {
		a.phases[name] += n
	}
	for m, n := range b.manners {
		a.manners[m] += n
	}
}
