package gateway

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/gateway/link"
)

var long = flag.Bool("long", os.Getenv("FAULTS") == "long", "run the long forms of TestDay, 24 hours, and TestHours, 100 seeds; also FAULTS=long")

// day is a day (three hours in the short form) of a gateway: devices are polled each second, and every minute the uplink goes, a device falls silent, the
// config is reloaded with something changed, and people look. What the process holds must not grow.
type day struct {
	*bubble
	given    map[string]int    // reads that were answered, by device; plant.mu guards it
	seen     map[string][]byte // how often each reading came, by device and what was read; the broker's mu guards these
	messages int
	strange  []string // messages that nobody can have sent
	hours    []dayHour
}

// dayHour is what the process held at the end of an hour.
type dayHour struct {
	heap, disk               uint64
	goroutines, files, lines int
}

func dayHours() int {
	if *long {
		return 24
	}
	return 3
}

var dayDevices = []string{"d0", "d1", "d2", "d3", "d4"}

// take notes a message; only what "cloud" gets is looked at.
func (d *day) take(destination string, m link.Message) {
	if destination != "cloud" {
		return
	}
	d.messages++
	_, value, good := bytes.Cut(m.Payload, []byte(`"values":{"n":`))
	if !good {
		return // bad readings, gaps
	}
	digits, _, _ := bytes.Cut(value, []byte("}"))
	n, err := strconv.Atoi(string(digits))
	seen := d.seen[strings.Split(m.Topic, "/")[2]]
	if err != nil || n < 1 || n >= len(seen) {
		d.strange = append(d.strange, m.Topic+" "+string(m.Payload))
		return
	}
	seen[n]++
}

// config is that of a minute of the day: one device has another interval in every other minute, another one is there in two minutes of three, and
// a second destination for half an hour each hour.
func (d *day) config(minute int) string {
	text := fmt.Sprintf("gateway: shop\ngrace_time: 5s\nweb: {enabled: false}\nbuffer: {path: %s, max_size: 64MiB, commit_interval: 10s}\ndestinations:\n  - {name: cloud, url: \"mqtt://127.0.0.1\"}\n", d.store)
	if minute%60 >= 30 {
		text += "  - {name: lake, url: \"mqtt://127.0.0.1\", client_id: lake}\n"
	}
	text += "devices:\n"
	for i, name := range dayDevices {
		interval := "1s"
		if i == 1 && minute%2 == 1 {
			interval = "500ms"
		}
		if i != 2 || minute%3 > 0 {
			text += fmt.Sprintf("  - {name: %s, driver: fake, url: \"fake://%s\", groups: [{name: g, interval: %s, tags: [{name: n, address: a}]}]}\n", name, name, interval)
		}
	}
	return text
}

// minute is one minute of ordinary trouble; one in an hour lasts six.
func (d *day) minute(minute int) {
	part := 10 * time.Second
	time.Sleep(time.Duration(minute%8)*125*time.Millisecond + 2*time.Millisecond) // devices are polled at such moments: answers are on their way
	d.broker.leave(true)
	time.Sleep(part)
	if minute%60 == 40 {
		time.Sleep(5 * time.Minute)
	}
	d.broker.leave(false)
	time.Sleep(part)
	d.hush("d3", true)
	time.Sleep(part)
	d.hush("d3", false)
	d.write(d.config(minute + 1))
	d.reload()
	time.Sleep(part)
	for _, path := range []string{"/", "/metrics", "/readyz", "/healthz", "/api/v1/snapshot", "/api/v1/values", "/api/v1/store"} {
		if body := d.page(path, part); body == "" {
			d.t.Errorf("minute %d: %s is empty", minute, path)
		}
	}
	if body := d.page("/api/v1/values?watch=1", part/2); strings.Count(body, "\n") < 5 {
		d.t.Errorf("minute %d: who watches saw %q", minute, body)
	}
	time.Sleep(part * 3 / 2)
}

// look notes what the process holds.
func (d *day) look() {
	var h dayHour
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what is in a sync.Pool outlives the first
	runtime.ReadMemStats(&m)
	open, _ := os.ReadDir("/proc/self/fd") // none elsewhere
	h.heap, h.goroutines, h.files, h.lines = m.HeapAlloc, runtime.NumGoroutine(), len(open), d.log.count()
	if err := filepath.WalkDir(d.store, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			h.disk += uint64(info.Size())
		}
		return err
	}); err != nil {
		d.t.Error(err)
	}
	d.hours = append(d.hours, h)
}

// judge compares the last third of the hours with the third before; in the first, caches and pools fill.
func (d *day) judge() {
	end := len(d.hours) - 1
	third := max(end/3, 1)
	from, middle, last := d.hours[end-2*third], d.hours[end-third], d.hours[end]
	early, late := middle.lines-from.lines, last.lines-middle.lines
	d.t.Logf("FIGURES %s: %d hours; heap %d KiB, then %d; %d goroutines, then %d; %d files open, then %d; %d KiB on disk, then %d; %d lines of log, then %d in the same time",
		d.t.Name(), len(d.hours), from.heap>>10, last.heap>>10, from.goroutines, last.goroutines, from.files, last.files, from.disk>>10, last.disk>>10, early, late)
	if last.heap > from.heap+512<<10 {
		d.t.Errorf("the heap grew from %d to %d KiB", from.heap>>10, last.heap>>10)
	}
	if last.goroutines > from.goroutines || last.files > from.files+2 {
		d.t.Errorf("%d goroutines and %d files, %d and %d before", last.goroutines, last.files, from.goroutines, from.files)
	}
	if late > early*11/10+10 {
		d.t.Errorf("%d lines of log, %d in the same time before", late, early)
	}
	if last.disk > from.disk+1<<20 {
		d.t.Errorf("the store grew from %d to %d KiB", from.disk>>10, last.disk>>10)
	}
}

// account looks whether all that was read has come.
func (d *day) account() {
	again := 0
	for name, given := range d.given {
		came := 0
		for _, times := range d.seen[name] {
			if times > 0 {
				came++
				again += int(times) - 1
			}
		}
		if came != given {
			d.t.Errorf("device %s: %d readings, %d came", name, given, came)
		}
	}
	if len(d.strange) > 0 {
		d.t.Errorf("%d strange messages, such as %q", len(d.strange), d.strange[0])
	}
	d.t.Logf("FIGURES %s: %d messages, of which %d came twice, as they were not answered", d.t.Name(), d.messages, again)
}

func TestDay(t *testing.T) {
	alone(t)
	synctest.Test(t, func(t *testing.T) {
		d := &day{bubble: newBubble(t), given: map[string]int{}, seen: map[string][]byte{}}
		d.broker.take = d.take
		d.plant.answered = func(device string, _ int) { d.given[device]++ }
		for _, name := range dayDevices {
			d.seen[name] = make([]byte, 2*3600*dayHours()*3/2) // polled each half second at most, and an hour has 65 minutes
		}
		d.write(d.config(0))
		d.begin()
		defer d.end()
		for minute := range dayHours() * 60 {
			d.minute(minute)
			if minute%60 == 59 {
				d.look()
			}
			if t.Failed() {
				return
			}
		}
		d.judge()
		d.stop()
		d.account()
	})
}
