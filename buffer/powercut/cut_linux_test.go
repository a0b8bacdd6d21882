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
	image     []byte
	log       []request
	unflushed []int // sectors that the drive has taken and not flushed, at each moment
}

func newRecording(image []byte, log []request) *recording {
	r := &recording{image: image, log: log, unflushed: make([]int, len(log)+1)}
	for i := range log {
		if !log[i].isFlush() {
			r.unflushed[i+1] = r.unflushed[i] + len(log[i].data)/sectorSize
		}
	}
	return r
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
	if volatile = p.rec.unflushed[c.at]; volatile > 0 {
		first = rng.IntN(volatile + 1)
		if c.manner == tearSector {
			torn = rng.IntN(volatile)
		}
	}
	n := 0
	for _, w := range cache {
		whole, survives := rng.Float64() < chance, false
		for i := 0; i < len(w.data); i, n = i+sectorSize, n+1 {
			at := w.off + int64(i)
			byChance := rng.Float64() < chance
			if i == 0 || at != superblock+sectorSize {
				survives = c.survives(n, first, whole, byChance)
			}
			size := sectorSize
			if n == torn && at != superblock && at != superblock+sectorSize {
				size, survives = 1+rng.IntN(sectorSize-1), true
			}
			if survives {
				copy(dst[at:], w.data[i:i+size])
				kept++
			}
		}
	}
	return volatile, kept
}

// superblock is where ext4 has its superblock: two sectors that it writes in place under one checksum, with
// no copy on so small a disk. It relies on them being written together, so we do not part them.
const superblock = 1024

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
// however short it is, and of three moments the one with the most in the drive's cache is taken, mostly.
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
	for offset := rng.IntN(len(names)); len(crashes) < n; offset++ {
		name := names[offset%len(names)]
		best := rec.randomMoment(kinds[name], rng)
		for range 2 {
			if at := rec.randomMoment(kinds[name], rng); rec.unflushed[at] > rec.unflushed[best] && rng.IntN(4) > 0 {
				best = at
			}
		}
		crashes = append(crashes, crash{at: best, phase: name, manner: manner(rng.IntN(int(manners))), seed: rng.Uint64()})
	}
	sort.Slice(crashes, func(i, j int) bool { return crashes[i].at < crashes[j].at })
	return crashes
}

// randomMoment returns a moment in one of the phases.
func (r *recording) randomMoment(list []phase, rng *rand.Rand) int {
	p := list[rng.IntN(len(list))]
	return p.from + rng.IntN(p.to-p.from+1)
}
