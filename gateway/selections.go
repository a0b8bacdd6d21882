package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
)

// selections keeps which tags the rules of groups have selected, in a file beside the store: a start has them before the device is there. A file that is lost costs that
// they are looked for.
type selections struct {
	file  kept
	log   *slog.Logger
	every time.Duration // see selectEvery

	mu   sync.Mutex
	by   map[string]selection // by device and group
	left int                  // groups for which the file had no room
	made int                  // tags, of all changes that were put into force
}

// groupKey names a group, and the device and rule that its tags are of.
type groupKey struct{ device, group, of string }

// selection is what the rule of a group has selected.
type selection struct {
	Of   string        `json:"of"` // of which device and rule
	Tags []selectedTag `json:"tags"`
}

type selectedTag struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Gone    bool   `json:"gone,omitempty"` // its node is not there any more
}

// maxGroup is how many tags a group may have.
const maxGroup = 1 << 17

func selectionsIn(dir string) kept {
	return kept{path: filepath.Join(dir, selectedFile), kind: "selected 1", most: 16 << 20}
}

func newSelections(dir string, log *slog.Logger) *selections {
	s := &selections{file: selectionsIn(dir), log: log, every: selectEvery}
	var err error
	if s.by, err = readSelections(&s.file); err != nil {
		log.Warn("what rules have selected cannot be read; it is looked for when the devices are there", "file", s.file.path, "cause", err)
	}
	return s
}

func readSelections(k *kept) (by map[string]selection, err error) {
	by = map[string]selection{}
	body, err := k.read()
	if err == nil && body != nil {
		err = json.Unmarshal(body, &by)
	}
	if err != nil || by == nil {
		return map[string]selection{}, err
	}
	return by, nil
}

// Select adds to the groups of cfg the tags that their rules have selected, by the file beside its store, and returns how many by device and group.
func Select(cfg *config.Config) map[[2]string]int {
	s := &selections{file: selectionsIn(cfg.Buffer.Path)}
	s.by, _ = readSelections(&s.file) // the gateway says so, and looks for them
	n := map[[2]string]int{}
	for name, was := range s.apply(cfg) {
		dev := &cfg.Devices[slices.IndexFunc(cfg.Devices, func(d config.Device) bool { return d.Name == name })]
		for i := range dev.Groups {
			n[[2]string{name, dev.Groups[i].Name}] = len(dev.Groups[i].Tags) - len(was.Groups[i].Tags)
		}
	}
	return n
}

// keyOf names a group with a rule.
func keyOf(c *config.Connection, dev *config.Device, group *config.Group) groupKey {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(group.Options)) {
		if strings.HasPrefix(name, c.Protocol.Rule) {
			_, _ = fmt.Fprintf(h, "%q %q ", name, group.Options[name]) // a hash takes everything
		}
	}
	return groupKey{dev.Name, group.Name, identity(c, dev) + " " + hex.EncodeToString(h.Sum(nil)[:8])}
}

func (k *groupKey) text() string { return k.device + "/" + k.group } // a device's name has no slash

// apply adds to the groups of cfg the tags that their rules have selected. It returns the devices that have rules as they were, by name.
func (s *selections) apply(cfg *config.Config) map[string]config.Device {
	source := map[string]config.Device{}
	if !slices.ContainsFunc(cfg.Devices, func(d config.Device) bool { return d.Selects() }) {
		return source
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range cfg.Connections() {
		for _, dev := range c.Devices {
			if !dev.Selects() {
				continue
			}
			source[dev.Name] = *dev
			dev.Groups = slices.Clone(dev.Groups)
			for i := range dev.Groups {
				group := &dev.Groups[i]
				key := keyOf(&c, dev, group)
				if was := s.by[key.text()]; group.Selects && was.Of == key.of {
					*group = group.Add(tagsOf(fitting(was.Tags, group)))
				}
			}
		}
	}
	return source
}

func tagsOf(all []selectedTag) []telemetry.Tag {
	tags := make([]telemetry.Tag, len(all))
	for i, t := range all {
		tags[i] = telemetry.Tag{Name: t.Name, Address: t.Address}
	}
	return tags
}

// listed returns the names and addresses of the tags that a group lists.
func listed(group *config.Group) (names, addresses map[string]bool) {
	names, addresses = map[string]bool{}, map[string]bool{}
	for i := range group.Tags {
		names[group.Tags[i].Name], addresses[group.Tags[i].Address] = true, true
	}
	for i := range group.Derived {
		names[group.Derived[i].Name] = true
	}
	return names, addresses
}

// fitting leaves out the tags that the group lists itself.
func fitting(all []selectedTag, group *config.Group) (fit []selectedTag) {
	names, addresses := listed(group)
	for _, t := range all {
		if !names[t.Name] && !addresses[t.Address] {
			fit = append(fit, t)
		}
	}
	return fit
}

// take takes in what the rules of a connection select now. It says in the log what is new, and reports whether the connection has other tags: those that came
// or went, also where they were taken in for the connection before, while a reload exchanged it.
func (s *selections) take(f *following, log *slog.Logger) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	anew := f.anew.Swap(false)
	if anew {
		f.drops = 0
	}
	dirty := false
	for i := range f.rules {
		r, found := &f.rules[i], f.found[i]
		f.found[i] = nil
		r.say(log, found.Note)
		if !found.Done {
			f.at = time.Now().Add(selectAgain)
			f.seen = 0 // Models is never that: try again
			continue
		}
		was := s.by[r.key.text()]
		if was.Of != r.key.of {
			was.Tags = nil
		}
		m := merge(was.Tags, &f.source[r.ref.Device].Groups[r.ref.Group], found, anew)
		if anew {
			f.drops += m.dropped
		}
		changed = changed || !slices.EqualFunc(r.tags, m.tags, func(a telemetry.Tag, b selectedTag) bool { return a.Name == b.Name && a.Address == b.Address })
		if was.Of == r.key.of && slices.Equal(m.tags, was.Tags) {
			continue
		}
		dirty = true
		s.by[r.key.text()] = selection{r.key.of, m.tags}
		log.Info("the browse rule of a group selects tags", "device", r.key.device, "group", r.key.group, "tags", len(m.tags), "new", few(m.come), "gone", few(m.gone), "back", few(m.back), "dropped", m.dropped)
	}
	if dirty {
		s.save()
	}
	return changed
}

// count returns how many tags a rule has selected.
func (s *selections) count(k *groupKey) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was := s.by[k.text()]; was.Of == k.of {
		return len(was.Tags)
	}
	return 0
}

// few shortens a list of names for the log.
func few(names []string) []string {
	if more := len(names) - maxLogged; more > 0 {
		return append(slices.Clone(names[:maxLogged]), fmt.Sprintf("and %d more", more))
	}
	return names
}

// merged is what a rule selects, and what of it is news.
type merged struct {
	tags             []selectedTag
	come, gone, back []string // names
	dropped          int
}

// merge brings together the tags that a rule had selected and those that it selects now. A tag keeps its name and place. One whose node is gone stays, and is bad by what the device says
// of it, unless anew, or until its room is needed.
func merge(was []selectedTag, group *config.Group, found *drivers.Selection, anew bool) (m merged) {
	names, addresses := listed(group)
	there := map[string]bool{}
	for i := range found.Tags {
		there[found.Tags[i].Address] = true
	}
	for _, t := range fitting(was, group) {
		gone := !there[t.Address]
		switch {
		case gone && anew:
			continue
		case gone && found.Whole && !t.Gone:
			m.gone, t.Gone = append(m.gone, t.Name), true
		case !gone && t.Gone:
			m.back, t.Gone = append(m.back, t.Name), false
		}
		names[t.Name], addresses[t.Address] = true, true
		m.tags = append(m.tags, t)
	}
	var fresh []selectedTag
	for i := range found.Tags {
		t := selectedTag{Name: found.Tags[i].Name, Address: found.Tags[i].Address}
		if addresses[t.Address] {
			continue
		}
		for n, base := 2, t.Name; names[t.Name]; n++ {
			t.Name = fmt.Sprintf("%s %d", base, n)
		}
		names[t.Name], addresses[t.Address] = true, true
		fresh = append(fresh, t)
	}
	most := max(min(found.Most, maxGroup-len(group.Tags)-len(group.Derived)), 0)
	for over := len(m.tags) + len(fresh) - most; over > 0; over-- { // the nodes that are gone give way
		at := slices.IndexFunc(m.tags, func(t selectedTag) bool { return t.Gone })
		if at < 0 {
			break
		}
		m.tags = slices.Delete(m.tags, at, at+1)
	}
	m.tags = m.tags[:min(len(m.tags), most)]
	fresh = fresh[:min(len(fresh), most-len(m.tags))]
	m.dropped = len(was) - len(m.tags)
	for _, t := range fresh {
		m.come = append(m.come, t.Name)
	}
	m.tags = append(m.tags, fresh...)
	return m
}

// save writes the file. mu is held.
func (s *selections) save() {
	body, left := encodeWithin(s.by, s.file.room())
	if left > s.left {
		s.log.Warn("what some rules have selected is too much to be kept; after a restart it is looked for when the devices are there", "groups", left)
	}
	s.left = left
	if err := s.file.write(body); err != nil {
		s.log.Warn("what rules have selected cannot be kept; after a restart it is looked for when the devices are there", "cause", err)
	}
}

// afford reports whether the tags that a connection has now may be put into force: see maxSelected.
func (s *selections) afford(f *following) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	tags := 0
	for i := range f.rules {
		tags += len(s.by[f.rules[i].key.text()].Tags)
	}
	if s.made+tags > maxSelected {
		if !f.tooMany {
			s.log.Warn("rules have selected other tags so often that these would take too much memory; they come into force at the next start, or at a reload", "device", f.rules[0].key.device)
		}
		f.tooMany = true
		return false
	}
	s.made += tags
	return true
}

// drop gives up what was selected for a connection: it cannot be put into force.
func (s *selections) drop(f *following) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range f.rules {
		delete(s.by, f.rules[i].key.text())
	}
	s.save()
}

// dropped waits until the rules of a connection have been followed for somebody who wants tags dropped whose nodes are gone, for as long as wait at most,
// and returns how many these were, and whether that is known.
func (s *selections) dropped(f *following, wait time.Duration) (n int, looked bool) {
	for end := time.Now().Add(wait); f.anew.Load() && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
	}
	s.mu.Lock() // take holds it until all are counted
	defer s.mu.Unlock()
	return f.drops, !f.anew.Load()
}

// forget gives up what was selected for groups that the config does not have any more.
func (s *selections) forget(connections []*connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[string]bool{}
	for _, c := range connections {
		if c.following == nil {
			continue
		}
		for i := range c.following.rules {
			known[c.following.rules[i].key.text()] = true
		}
	}
	before := len(s.by)
	maps.DeleteFunc(s.by, func(name string, _ selection) bool { return !known[name] })
	if len(s.by) != before {
		s.save()
	}
}
