package gateway

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
)

// learned keeps over a restart what drivers have learned of devices, in a small file beside the store's. A file that is lost
// or damaged costs that it is learned anew.
type learned struct {
	file kept
	log  *slog.Logger
	now  func() time.Time

	saving  sync.Mutex // one save at a time; taken before mu
	mu      sync.Mutex
	by      map[string]lesson // by device
	dirty   bool              // the file has something else
	urgent  bool              // a first thing of its kind is among it
	seen    map[string]bool   // devices and options of which the file had something, in this run
	news    map[string]bool   // devices of which something was learned since the last save
	saved   time.Time
	failing bool // the last save did, and the log has it
	left    int  // devices for which the file had no room
}

// learning is a device of a driver that learns.
type learning struct {
	name  string
	of    string            // which device it is, to the driver
	given map[string]string // its options
}

func learningOf(c *config.Connection) []learning {
	list := make([]learning, len(c.Devices))
	for i, d := range c.Devices {
		list[i] = learning{d.Name, identity(c, d), d.Options}
	}
	return list
}

// lesson is what was learned of a device.
type lesson struct {
	Of      string            `json:"of"`               // which device that is, to the driver
	Options map[string]string `json:"learned"`          // texts by option
	Given   map[string]string `json:"config,omitempty"` // what the config said of these options meanwhile
}

// learnedEvery is how often the file is written at most, so that a search is over mostly. What an option of a device is at first is written at once: a namespace
// that was not kept could not be told from another after a crash. That is as often as there are devices and options, in a run.
const learnedEvery = time.Minute

// learnedIn is the file of a store.
func learnedIn(dir string) kept {
	return kept{path: filepath.Join(dir, learnedFile), kind: "learned 1", most: 256 << 10}
}

func newLearned(dir string, log *slog.Logger) *learned {
	l := &learned{file: learnedIn(dir), log: log, now: time.Now, saved: time.Now(), news: map[string]bool{}, seen: map[string]bool{}}
	var err error
	if l.by, err = readLearned(&l.file); err != nil {
		log.Warn("what was learned of devices cannot be read; it is learned anew", "file", l.file.path, "cause", err)
	}
	if l.by == nil {
		l.by = map[string]lesson{}
	}
	return l
}

// readLearned reads the file; one that is not there holds nothing.
func readLearned(k *kept) (by map[string]lesson, err error) {
	body, err := k.read()
	if body == nil {
		return nil, err
	}
	return parseLearned(body)
}

func parseLearned(body []byte) (by map[string]lesson, err error) {
	if err := json.Unmarshal(body, &by); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	return by, nil
}

// identity says in one word which device this is to its driver.
func identity(c *config.Connection, dev *config.Device) string {
	url := dev.URL
	if c.Protocol.Normal != nil {
		url = c.Protocol.Normal(url)
	}
	h := sha256.New()
	add := func(text string) { _, _ = fmt.Fprintf(h, "%q ", text) } // a hash takes everything
	add(dev.Driver)
	add(PublicURL(url))
	for _, name := range c.Protocol.Identity {
		add(cmp.Or(dev.Options[name], c.Connection.Options[name]))
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// fits returns what of a lesson still holds: all of it is of this device, and of each option only while the config says of
// it what it did.
func (l *lesson) fits(d *learning) map[string]string {
	held := map[string]string{}
	for name, text := range l.Options {
		if l.Of == d.of && l.Given[name] == d.given[name] {
			held[name] = text
		}
	}
	return held
}

// restore gives a driver what was learned of its devices.
func (l *learned) restore(to drivers.Learner, devices []learning) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range devices {
		d := &devices[i]
		was, ok := l.by[d.name]
		if !ok {
			continue
		}
		held := was.fits(d)
		if len(held) < len(was.Options) {
			l.log.Info("what was learned of a device is forgotten, because its config says something else now", "device", d.name, "kept", configLines(held))
		}
		if err := to.Restore(i, held); err != nil {
			l.log.Warn("what was learned of a device is not valid and is left out", "device", d.name, "cause", err)
		}
	}
}

// look takes in what the drivers know now.
func (l *learned) look(connections []*connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := map[string]lesson{}
	for _, c := range connections {
		for i := range c.learning {
			d := &c.learning[i]
			options := c.learner.Learned(i)
			was := l.by[d.name]
			if !maps.Equal(was.Options, options) {
				l.news[d.name], l.dirty = true, true
			}
			l.first(d.name, options, was.Options)
			if len(options) == 0 {
				continue
			}
			if now[d.name] = was; !maps.Equal(was.fits(d), options) {
				now[d.name] = newLesson(d, options)
				l.dirty = true
			}
		}
	}
	l.dirty = l.dirty || len(now) != len(l.by)
	l.by = now
}

// first notes that something of a kind is known of a device which was not in this run, nor before it. mu is held.
func (l *learned) first(device string, options, was map[string]string) {
	for name := range options {
		key := device + "/" + name
		if _, kept := was[name]; !kept && !l.seen[key] {
			l.urgent = true
		}
		l.seen[key] = true
	}
}

func newLesson(d *learning, options map[string]string) lesson {
	n := lesson{Of: d.of, Options: options, Given: map[string]string{}}
	for name := range options {
		if text, given := d.given[name]; given {
			n.Given[name] = text
		}
	}
	return n
}

// save writes the file if it has something else, once a minute at most, or at once if that is urgent or asked for.
func (l *learned) save(atOnce bool) error {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	if !l.dirty || !atOnce && !l.urgent && l.now().Sub(l.saved) < learnedEvery {
		l.mu.Unlock()
		return nil
	}
	body, left := encodeWithin(l.by, l.file.room())
	l.dirty, l.urgent, l.saved = false, false, l.now()
	l.tell(left)
	l.mu.Unlock()
	err := l.file.write(body)
	if err != nil {
		err = fmt.Errorf("keep what was learned of devices: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && !l.failing {
		l.log.Warn("what was learned of devices is lost at a restart, because it cannot be written; trying again", "cause", err)
	}
	l.dirty, l.failing = l.dirty || err != nil, err != nil
	return err
}

// tell logs what was learned since the last save. mu is held.
func (l *learned) tell(left int) {
	for i, name := range slices.Sorted(maps.Keys(l.news)) {
		if i == maxLogged {
			l.log.Info("learned how more devices want to be asked; `millrace learned` shows all", "devices", len(l.news)-i)
			break
		}
		if lines := configLines(l.by[name].Options); lines != nil {
			l.log.Info("learned something about a device; as lines of its config it is permanent", "device", name, "learned", lines)
		}
	}
	clear(l.news)
	if left > l.left {
		l.log.Warn("what was learned of some devices is lost at a restart, because it is too much; put into the config what `millrace learned` shows", "devices", left)
	}
	l.left = left
}

var plainScalar = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// configLines returns options as lines of a config.
func configLines(options map[string]string) (lines []string) {
	if len(options) == 0 { // as of most of many devices, at each look
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		text := options[name]
		if !plainScalar.MatchString(text) {
			text = strconv.Quote(text)
		}
		lines = append(lines, name+": "+text)
	}
	return lines
}

// Learned returns as lines of the config what the file beside the store of cfg holds of its devices, by name.
func Learned(cfg *config.Config) map[string][]string {
	file := learnedIn(cfg.Buffer.Path)
	by, err := readLearned(&file)
	if err != nil {
		return nil // the gateway says so, and learns anew
	}
	lines := map[string][]string{}
	for _, c := range cfg.Connections() {
		for _, d := range learningOf(&c) {
			if was, ok := by[d.name]; ok {
				lines[d.name] = configLines(was.fits(&d))
			}
		}
	}
	return lines
}

// keepLearned takes in what the drivers know, and keeps it.
func (g *Gateway) keepLearned(atOnce bool) error {
	g.mu.Lock()
	connections := g.running.connections
	g.mu.Unlock()
	g.learned.look(connections)
	return g.learned.save(atOnce)
}

// ResetLearned has a driver forget what it learned of a device, and says what that was: see web.Gateway.
func (g *Gateway) ResetLearned(device, who string) ([]string, error) {
	was, conn, err := g.forgetLearned(device, who)
	if err != nil || conn.following == nil {
		return was, err
	}
	n, looked := 0, false
	if conn.poller.Stats().Up {
		n, looked = g.selections.dropped(conn.following, dropWait)
	}
	if n > 0 || !looked {
		was = append(was, droppedLine(n, looked))
	}
	return was, nil
}

// dropWait is how long somebody who has tags dropped waits until the device was looked through.
const dropWait = 3 * time.Second

func droppedLine(n int, looked bool) string {
	if !looked {
		return "# tags of its rules whose nodes are gone are dropped when the device has been looked through; the log says how many"
	}
	return fmt.Sprintf("# dropped, because their nodes are gone: %s that its rules had selected", telemetry.Count(n, "tag"))
}

// forgetLearned is ResetLearned but for waiting until the rules of the connection have been followed anew.
func (g *Gateway) forgetLearned(device, who string) ([]string, *connection, error) {
	g.reloading.Lock() // else the connection may be exchanged meanwhile, and the new one have it
	defer g.reloading.Unlock()
	conn := g.connectionOf(device)
	if conn == nil {
		return nil, nil, fmt.Errorf("reset what was learned of device %q: the gateway has no such device; `millrace learned` shows all of which something was learned", device)
	}
	i := slices.IndexFunc(conn.learning, func(d learning) bool { return d.name == device })
	if i < 0 {
		return nil, nil, fmt.Errorf("reset what was learned of device %q: its driver learns nothing", device)
	}
	was := configLines(conn.learner.Learned(i))
	conn.learner.Forget(i)
	lookAgain([]*connection{conn}, true)
	g.log.Info("what was learned of a device is forgotten, as was asked for", "device", device, "by", who, "forgotten", was)
	if err := g.keepLearned(true); err != nil {
		return nil, nil, fmt.Errorf("what was learned of device %q is forgotten for now, and comes back at a restart: %w", device, err)
	}
	return was, conn, nil
}
