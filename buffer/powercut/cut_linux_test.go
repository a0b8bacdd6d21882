package powercut

import (
	"fmt"
	"math/rand/v2"
	"sort"
)

// manner is how the drive treats the writes that it has taken and not flushed when the power goes.
type manner int

const (
	keepSectors manner = iota // each sector survives by chance, whatever write it belongs to
	keepWrites                // each write survives by chance, whole
	keepFirst                 // the writes up to some one survive, and a part of that one
	keepNone                  // the cache is lost
	keepAll                   // the cache is saved
	tearSector                // as keepSectors, and one sector is half old, half new
	manners
)

func (m manner) String() string {
	return [...]string{"keep sectors", "keep writes", "keep first", "keep none", "keep all", "tear a sector"}[m]
}

// crash is one power cut.
type crash struct {
	at     int // moment: the requests before it were answered
	phase  string
	manner manner
	seed   uint64
}

func (c crash) String() string {
	return fmt.Sprintf("cut at request %d (%s), %s, seed %d", c.at, c.phase, c.manner, c.seed)
}

// recording is what a disk held at first and everything it was asked to do.
type recording struct {
	image []byte
	log   []request
}

// flushedBefore returns the index of the last flush answered before a moment, or -1: writes before it survive.
func (r *recording) flushedBefore(at int) int {
	for i := at - 1; i >= 0; i-- {
		if r.log[i].isFlush() {
			return i
		}
	}
	return -1
}

// player builds the disks of power cuts at ever later moments.
type player struct {
	rec  *recording
	base []byte // the image with the first n requests done
	n    int
}

func newPlayer(rec *recording) *player {
	return &player{rec: rec, base: append([]byte(nil), rec.image...)}
}

// build writes into dst what a power cut leaves. It returns how many sectors the drive had taken and not
// flushed, and how many of them are in dst.
func (p *player) build(dst []byte, c crash) (volatile, kept int) {
	for last := p.rec.flushedBefore(c.at); p.n <= last; p.n++ {
		w := &p.rec.log[p.n]
		copy(p.base[w.off:], w.data)
	}
	copy(dst, p.base)
	cache := p.rec.log[p.n:max(c.at, p.n)]
	rng := rand.New(rand.NewPCG(c.seed, 3))
	chance := []float64{0.02, 0.2, 0.5, 0.8, 0.98}[rng.IntN(5)]
	torn, first := -1, 0
	for _, w := range cache {
		volatile += len(w.data) / sectorSize
	}
	if volatile > 0 {
		first = rng.IntN(volatile + 1)
		if c.manner == tearSector {
			torn = rng.IntN(volatile)
		}
	}
	n := 0
	for _, w := range cache {
		whole := rng.Float64() < chance
		for i := 0; i < len(w.data); i, n = i+sectorSize, n+1 {
			from, to := i, i+sectorSize
			if n == torn {
				to = from + 1 + rng.IntN(sectorSize-1)
			} else if !c.survives(n, first, whole, rng.Float64() < chance) {
				continue
			}
			copy(dst[w.off+int64(from):], w.data[from:to])
			kept++
		}
	}
	return volatile, kept
}

// survives decides about one sector of the cache, the n-th of it.
func (c *crash) survives(n, first int, whole, byChance bool) bool {
	switch c.manner {
	case keepNone:
		return false
	case keepAll:
		return true
	case keepWrites:
		return whole
	case keepFirst:
		return n < first
	default:
		return byChance
	}
}

// chooseCrashes chooses n power cuts, in order of their moments. Every kind of phase gets its share,
// however short it is. Half of the cuts come just before a flush is done, when the cache is fullest.
func chooseCrashes(rec *recording, phases []phase, n int, rng *rand.Rand) []crash {
	kinds := map[string][]phase{}
	var names []string
	for _, p := range phases {
		if kinds[p.name] == nil {
			names = append(names, p.name)
		}
		kinds[p.name] = append(kinds[p.name], p)
	}
	crashes := make([]crash, 0, n)
	for i := range n {
		list := kinds[names[i%len(names)]]
		p := list[rng.IntN(len(list))]
		at := p.from + rng.IntN(p.to-p.from+1)
		if rng.IntN(2) == 0 {
			at = rec.nextFlush(at, p.to)
		}
		crashes = append(crashes, crash{at: at, phase: p.name, manner: manner(rng.IntN(int(manners))), seed: rng.Uint64()})
	}
	sort.Slice(crashes, func(i, j int) bool { return crashes[i].at < crashes[j].at })
	return crashes
}

// nextFlush returns the moment at which the next flush is under way, up to a limit.
func (r *recording) nextFlush(at, limit int) int {
	for i := at; i < limit; i++ {
		if r.log[i].isFlush() {
			return i
		}
	}
	return limit
}
