package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
	"millrace/gateway/link"
)

// hours are some hours of a gateway to which everything happens that a seed says: the broker is away or hangs, devices fall silent, reloads, stops and kills,
// with a store that may be small. What was read has come, or lies in a gap that was told, and is counted there.
type hours struct {
	*bubble
	rng    *rand.Rand
	done   map[string]int // what happened, by name
	number int            // of the store's directory

	buffer  string // keys of the config that last as long as the store
	tags    string
	devices []string

	dead  bool                         // the gateway that still runs was killed; plant.mu guards it and what follows
	given map[string]map[int]time.Time // what was read, or came about where devices push, by device, and when

	source   *source // of the device that pushes
	history  bool    // it keeps one
	complete bool    // and the store has room for it: only what overflows in the device's queue may be missing
	ended    time.Time

	sent map[messageKey]uint64 // messages, what they hold; the broker's mu guards these
	came map[string]map[int]bool
	gaps map[string][]toldGap
	odd  []string

	spoiler  *spoiler          // of what killed gateways leave; nil = it stays whole
	exact    bool              // nobody is killed, and what the broker takes it answers: then what is told to be missing is exactly what is
	readings map[string]uint64 // that came, good and bad, by device; the broker's mu guards it
	accepted map[string]uint64 // by the store
}

type messageKey struct {
	Epoch string
	Seq   uint64
}

// toldGap is what a gap message says.
type toldGap struct {
	From, To *int64
	Count    int
	Unknown  bool
	Cause    string
}

// pushingDevice is the device that pushes; the others are polled.
const pushingDevice = "p"

var hashSeed = maphash.MakeSeed()

// take notes a message; only what "cloud" gets is looked at.
func (h *hours) take(destination string, m link.Message) {
	if destination != "cloud" {
		return
	}
	var says struct {
		messageKey
		Device  string
		Ts      int64
		Values  map[string]json.RawMessage
		Bad     map[string]string
		Earlier []struct {
			Value json.RawMessage
		}
		Gap *toldGap
	}
	if err := json.Unmarshal(m.Payload, &says); err != nil {
		h.odd = append(h.odd, fmt.Sprintf("%v: %s", err, m.Payload))
		return
	}
	holds := maphash.Bytes(hashSeed, bytes.Replace(m.Payload, []byte(`"historical":true,`), nil, 1))
	if before, again := h.sent[says.messageKey]; again {
		if before != holds {
			h.odd = append(h.odd, fmt.Sprintf("two contents of one number: %.300s", m.Payload))
		}
		return
	}
	h.sent[says.messageKey] = holds
	h.readings[says.Device] += uint64(len(says.Values) + len(says.Bad))
	if says.Gap != nil {
		if h.spoiler != nil && says.Gap.From == nil { // nothing is left that knows since when
			says.Gap.From = new(int64)
		}
		if h.spoiler != nil && says.Gap.To == nil {
			says.Gap.To = &says.Ts
		}
		if says.Gap.From == nil || says.Gap.To == nil || says.Ts == 0 {
			h.odd = append(h.odd, fmt.Sprintf("a gap of any time: %s", m.Payload))
			return
		}
		h.gaps[says.Device] = append(h.gaps[says.Device], *says.Gap)
	}
	all := says.Earlier
	if n, good := says.Values["n"]; good {
		all = append(all, struct{ Value json.RawMessage }{n})
	}
	for _, r := range all {
		n := r.Value
		if n == nil {
			continue
		}
		var number int
		if err := json.Unmarshal(n, &number); err != nil || h.came[says.Device][number] && says.Device != pushingDevice {
			h.odd = append(h.odd, fmt.Sprintf("not a reading, or one under two numbers: %.300s", m.Payload))
		}
		h.came[says.Device][number] = true
	}
}

func newHours(t *testing.T, seed uint64) *hours {
	h := &hours{bubble: newBubble(t), rng: rand.New(rand.NewPCG(seed, 1)), done: map[string]int{}, devices: []string{"d0", "d1", "d2", pushingDevice},
		given: map[string]map[int]time.Time{}, sent: map[messageKey]uint64{}, came: map[string]map[int]bool{}, gaps: map[string][]toldGap{},
		exact: seed%2 == 0, readings: map[string]uint64{}, accepted: map[string]uint64{}}
	for _, name := range h.devices {
		h.given[name], h.came[name] = map[int]time.Time{}, map[int]bool{}
	}
	h.broker.take, h.broker.promptly = h.take, h.exact
	h.plant.answered = func(device string, n int) { h.given[device][n] = time.Now() }
	h.plant.silent = func(device string) bool { return h.dead || h.silent[device] }
	noise, letters := make([]byte, 3000), rand.New(rand.NewPCG(seed, 2)) // by the goroutines of devices
	h.plant.text = func() string {
		for i := range noise {
			noise[i] = ' ' + byte(letters.IntN(90))
		}
		return string(noise)
	}
	if seed%4 == 1 {
		h.spoiler = &spoiler{rand.New(rand.NewPCG(seed, 4))}
	}
	h.source = &source{h: h, device: pushingDevice, rng: rand.New(rand.NewPCG(seed, 3))}
	h.history = h.rng.IntN(2) == 0
	h.more = []drivers.Protocol{{Name: "push", New: func(drivers.Connection) (drivers.Driver, error) {
		if p := (&pusher{s: h.source}); !h.history {
			return p, nil
		} else {
			return historian{p}, nil
		}
	}}}
	commit := []time.Duration{time.Second, 3 * time.Second, 10 * time.Second}[h.rng.IntN(3)]
	h.buffer = fmt.Sprintf("commit_interval: %s, when_full: %s", commit, []string{"drop-oldest", "drop-newest"}[h.rng.IntN(2)])
	h.tags = "{name: n, address: a}"
	switch h.rng.IntN(4) {
	case 0:
		h.complete = h.history && h.spoiler == nil // what is read of a history may be damaged, too
		h.buffer += ", max_size: 64MiB"
	case 1:
		h.buffer += ", max_size: 64MiB, max_age: 3m"
	default:
		h.buffer += ", max_size: 4MiB"
		h.tags += ", {name: text, address: text}"
	}
	return h
}

// draw writes a config.
func (h *hours) draw(all bool) {
	text := fmt.Sprintf("gateway: shop\ngrace_time: 5s\nweb: {enabled: false}\nbuffer: {path: %s, %s}\ndestinations:\n  - {name: cloud, url: \"mqtt://127.0.0.1\", order: %s, window: %d}\n",
		h.store, h.buffer, []string{"live-first", "oldest-first"}[h.rng.IntN(2)], 1+h.rng.IntN(100))
	if h.rng.IntN(2) == 0 {
		text += "  - {name: lake, url: \"mqtt://127.0.0.1\", client_id: lake}\n"
	}
	text += "devices:\n"
	for i, name := range h.devices {
		if name == pushingDevice {
			text += fmt.Sprintf("  - {name: %s, driver: push, url: \"push://%s\", groups: [{name: g, interval: %s, tags: [{name: n, address: a}]}]}\n",
				name, name, []string{"500ms", "1s"}[h.rng.IntN(2)])
		} else if i == 0 || all || h.rng.IntN(4) > 0 {
			text += fmt.Sprintf("  - {name: %s, driver: fake, url: \"fake://%s\", groups: [{name: g, interval: %s, tags: [%s]}]}\n",
				name, name, []string{"500ms", "1s", "2s"}[h.rng.IntN(3)], h.tags)
		}
	}
	h.write(text)
}

// step lets something happen.
func (h *hours) step() {
	what := ""
	device := h.devices[h.rng.IntN(len(h.devices))]
	switch n := h.rng.IntN(40); {
	case n < 8:
		what = "uplink"
		h.broker.leave(!h.broker.away)
	case n < 12:
		what = "hang"
		h.broker.hang(!h.broker.mute, !h.exact && h.rng.IntN(2) == 0)
	case n < 18:
		what = "silent"
		h.hush(device, !h.silent[device])
	case n < 26:
		what = "reload"
		h.draw(false)
		h.reload()
	case n < 28:
		what = "stop"
		h.stop()
		h.sleep(20 * time.Second)
		h.draw(false)
		h.begin()
	case n < 30 && !h.exact:
		what = "kill"
		h.kill()
		h.sleep(20 * time.Second)
		h.draw(false)
		h.begin()
	case n >= 30 && n < 33:
		what = "flap"
		for range 4 {
			h.hush(pushingDevice, true)
			time.Sleep(5 * time.Second)
			h.hush(pushingDevice, false)
			h.sleep(5 * time.Second)
		}
	default:
		what = "quiet"
	}
	h.done[what]++
	h.sleep(40 * time.Second)
}

// sleep sleeps so long in the mean.
func (h *hours) sleep(mean time.Duration) {
	time.Sleep(time.Duration(h.rng.ExpFloat64() * float64(mean)).Round(time.Microsecond))
}

// kill leaves the store as a process leaves it that is killed now: a copy of it, while nothing moves.
func (h *hours) kill() {
	synctest.Wait()
	h.number++
	copied := filepath.Join(filepath.Dir(h.store), strings.Repeat("long", 30)+fmt.Sprint(h.number))
	if err := os.CopyFS(copied, os.DirFS(h.store)); err != nil {
		h.t.Fatal(err)
	}
	away := h.broker.away
	h.broker.leave(true)
	h.plant.mu.Lock()
	h.dead = true
	h.plant.mu.Unlock()
	h.stop()
	if err := os.RemoveAll(h.store); err != nil {
		h.t.Fatal(err)
	}
	h.store = copied
	if h.spoiler != nil {
		what, err := h.spoiler.spoil(copied)
		if err != nil {
			h.t.Fatal(err)
		}
		h.done["spoiled: "+what]++
	}
	h.plant.mu.Lock()
	h.dead = false
	h.plant.mu.Unlock()
	h.broker.leave(away)
}

// settle lets all be well until everything is delivered.
func (h *hours) settle() {
	h.broker.leave(false)
	h.broker.hang(false, true)
	for _, d := range h.devices {
		h.hush(d, false)
	}
	h.draw(true)
	h.reload()
	if h.history {
		time.Sleep(90 * time.Minute) // until it is read
	}
	for range 60 {
		time.Sleep(time.Minute)
		waits := 0
		for _, d := range h.g.Snapshot().Destinations {
			waits += int(d.BacklogRecords)
		}
		if waits == 0 {
			break
		}
	}
	time.Sleep(time.Minute) // the last gap records
	h.ended = time.Now()
	h.stop()
	for _, a := range h.g.buf.Ledger() {
		h.accepted[a.Name] = a.Accepted
	}
}

// judge looks for what was read, has not come, and is in no gap.
func (h *hours) judge() (read, missing, told int) {
	h.plant.mu.Lock()
	defer h.plant.mu.Unlock()
	h.broker.mu.Lock()
	defer h.broker.mu.Unlock()
	for _, odd := range h.odd[:min(len(h.odd), 5)] {
		h.t.Error(odd)
	}
	for _, device := range h.devices {
		counted, lost := 0, 0
		for _, g := range h.gaps[device] {
			if g.Cause != "outage" && !g.Unknown {
				counted += g.Count
			}
		}
		numbers := slices.Sorted(maps.Keys(h.given[device]))
		read, told = read+len(numbers), told+counted
		first := slices.Min(slices.Collect(maps.Keys(h.came[device])))
		for _, n := range numbers {
			if h.came[device][n] || device == pushingDevice && (n < first || h.given[device][n].After(h.ended.Add(-5*time.Second))) {
				continue
			}
			missing++
			at := h.given[device][n].UnixMilli()
			unknown, in := false, false
			for _, g := range h.gaps[device] {
				from := *g.From
				if device == pushingDevice && g.Cause != "outage" && g.Cause != "lost" {
					from -= 5000 // a gap of records has their times: when they were pushed
				}
				if device == pushingDevice && h.complete && g.Cause == "outage" {
					continue
				}
				if from <= at && at <= *g.To {
					in, unknown = true, unknown || g.Unknown || g.Cause == "outage"
				}
			}
			if !in {
				h.t.Errorf("device %s: reading %d of %s never came, and no gap tells of it", device, n, h.given[device][n].UTC())
			}
			if !unknown {
				lost++
			}
		}
		if sum := h.readings[device] + uint64(counted); h.exact && device != pushingDevice && sum != h.accepted[device] {
			h.t.Errorf("device %s: of %d readings %d came, and gaps tell of %d", device, h.accepted[device], h.readings[device], counted)
		}
		if lost > counted && device != pushingDevice {
			h.t.Errorf("device %s: %d readings never came, and gaps tell of %d", device, lost, counted)
		}
	}
	return read, missing, told
}

func TestHours(t *testing.T) {
	alone(t)
	seeds, lasts := []uint64{1, 2, 3}, hoursLast
	first := rand.IntN(1 + len(seeds) - hoursSeeds)
	seeds = seeds[first : first+hoursSeeds]
	if *long {
		seeds, lasts = make([]uint64, 100), 2*time.Hour
		for i := range seeds {
			seeds[i] = rand.Uint64()
		}
	}
	if s := os.Getenv("MILLRACE_SEED"); s != "" {
		seeds = make([]uint64, 1)
		if _, err := fmt.Sscan(s, &seeds[0]); err != nil {
			t.Fatal(err)
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHours(t, seed)
				h.draw(true)
				ctx, cancel := context.WithCancel(context.Background())
				go h.source.run(ctx)
				ended := func() { cancel(); time.Sleep(time.Minute) } // when all that is ours has, too
				defer ended()
				h.begin()
				defer h.end()
				time.Sleep(time.Minute) // before that nobody knows since when a gateway runs that is killed
				for begun := time.Now(); time.Since(begun) < lasts && !t.Failed(); {
					h.step()
				}
				h.settle()
				ended()
				read, missing, told := h.judge()
				t.Logf("FIGURES %s: %s; history %t; %v; %d readings, %d of them never came, gaps count %d", t.Name(), h.buffer, h.history, h.done, read, missing, told)
			})
		})
	}
}
