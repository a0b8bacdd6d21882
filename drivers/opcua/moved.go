package opcua

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"millrace/drivers"
)

// Bounds of what is kept of the server's namespaces.
const (
	maxIndexes = 64  // that addresses use
	maxURI     = 256 // bytes of a namespace
)

// namespaces is what the indexes in the addresses of a config stand for: a server that numbers its namespaces anew gives other nodes the same addresses, and
// their values are good. It stands until somebody has accepted it.
type namespaces struct {
	used  []uint16 // by addresses
	given map[uint16]string

	mu      sync.Mutex
	meant   map[uint16]string // what they stood for at first; "" never
	now     map[uint16]string // at the last connect; "" = there is none
	since   time.Time         // when they began to differ
	learned map[string]string // meant, as an option; nil = the config says it
}

const namespacesOption = "namespaces"

// indexesOf returns the namespaces but 0 that addresses and rules name by index, as far as they are bounded.
func indexesOf(groups [][]group) (used []uint16) {
	add := func(a address) {
		for _, ns := range a.indexes() {
			if ns > 0 && len(used) < maxIndexes && !slices.Contains(used, ns) {
				used = append(used, ns)
			}
		}
	}
	for i := range groups {
		for j := range groups[i] {
			if r := groups[i][j].rule; r != nil { // first: what is kept of it keeps other nodes from being tags
				add(r.at)
			}
			for k := range groups[i][j].tags {
				add(groups[i][j].tags[k].addr)
				if e := groups[i][j].tags[k].event; e != nil && e.kind != nil {
					add(*e.kind)
				}
			}
		}
	}
	slices.Sort(used)
	return used
}

// look compares the server's namespaces with what the indexes stood for; nil = they are not known.
func (n *namespaces) look(names []string, now time.Time) {
	if names == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now = map[uint16]string{}
	for _, ns := range n.used {
		n.now[ns] = ""
		if int(ns) < len(names) {
			n.now[ns] = strings.ToValidUTF8(names[ns][:min(len(names[ns]), maxURI)], "")
		}
	}
	n.compare(now)
}

// compare takes what was not known before for what was meant. mu is held.
func (n *namespaces) compare(now time.Time) {
	if n.meant == nil {
		n.meant = maps.Clone(n.given)
	}
	if n.meant == nil {
		n.meant = map[uint16]string{}
	}
	for ns, uri := range n.now {
		if n.meant[ns] == "" && uri != "" {
			n.meant[ns] = uri
		}
	}
	switch moved := len(n.moved()) > 0; {
	case !moved:
		n.since = time.Time{}
	case n.since.IsZero():
		n.since = now
	}
	n.publish()
}

// publish says what is meant, as an option, where the config does not. mu is held.
func (n *namespaces) publish() {
	var words []string
	said := true
	for _, ns := range n.used {
		if uri := n.meant[ns]; uri != "" && !strings.ContainsFunc(uri, unicode.IsSpace) {
			words = append(words, fmt.Sprintf("%d=%s", ns, uri))
			said = said && n.given[ns] == uri
		}
	}
	if n.learned = nil; !said {
		n.learned = map[string]string{namespacesOption: strings.Join(words, " ")}
	}
}

// moved returns the indexes that stand for another namespace now. mu is held.
func (n *namespaces) moved() (all []uint16) {
	for _, ns := range n.used {
		if now, known := n.now[ns]; known && n.meant[ns] != "" && now != n.meant[ns] {
			all = append(all, ns)
		}
	}
	return all
}

// Changed says for as long as addresses may mean other nodes that they may: drivers.Comparer.
func (d *driver) Changed() drivers.Change {
	n := &d.spaces
	n.mu.Lock()
	defer n.mu.Unlock()
	var words []string
	for _, ns := range n.moved() {
		now := "does not exist"
		if uri := n.now[ns]; uri != "" {
			now = fmt.Sprintf("is %.100q", uri)
		}
		if words = append(words, fmt.Sprintf("%d %s now, and was %.100q", ns, now, n.meant[ns])); len(words) == maxHints {
			break
		}
	}
	if len(words) == 0 {
		return drivers.Change{}
	}
	return drivers.Change{Since: n.since, What: "the server numbers its namespaces in another way, and addresses with an index may mean other nodes: namespace " + strings.Join(words, ", namespace "),
		Mend: "see whether the values are the right ones, and write nsu= instead of ns="}
}

// Accept takes the server's namespaces as they are: drivers.Comparer.
func (d *driver) Accept() {
	n := &d.spaces
	n.mu.Lock()
	for _, ns := range n.moved() {
		n.meant[ns] = n.now[ns]
	}
	n.compare(time.Now())
	n.mu.Unlock()
	d.doubt()
}

// doubt has the values of tags marked whose addresses may mean other nodes.
func (d *driver) doubt() {
	d.spaces.mu.Lock()
	defer d.spaces.mu.Unlock()
	moved := d.spaces.moved()
	for i := range d.groups {
		for j := range d.groups[i] {
			d.groups[i][j].doubt(&d.spaces, moved)
		}
	}
}

// doubt says why each tag may be another node's; the mutex of spaces is held.
func (g *group) doubt(spaces *namespaces, moved []uint16) {
	if g.doubts.Store(nil); len(moved) == 0 {
		return
	}
	doubts := make([]string, len(g.tags))
	for i := range g.tags {
		say := func(a *address, what, other string) {
			for _, ns := range a.indexes() {
				if slices.Contains(moved, ns) {
					doubts[i] = fmt.Sprintf("namespace %d of its %s was %.100q when the server was first reached, and is not any more: it may be another %s; write nsu=", ns, what, spaces.meant[ns], other)
				}
			}
		}
		if e := g.tags[i].event; e != nil && e.kind != nil {
			say(e.kind, "event_type", "type")
		}
		say(&g.tags[i].addr, "address", "node")
	}
	g.doubts.Store(&doubts)
}

// strays says why what a rule would select may be of another node than the one that is meant; "" = it is not.
func (n *namespaces) strays(r *rule) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	moved := n.moved()
	for _, ns := range r.at.indexes() {
		if slices.Contains(moved, ns) {
			return fmt.Sprintf("namespace %d of browse %q was %.100q when the server was first reached, and is not any more: the tags stay as they were until it is again, or until millrace ack; write nsu=", ns, clip(r.root), n.meant[ns])
		}
	}
	return ""
}

// Learned returns what the indexes in addresses stand for: drivers.Learner.
func (d *driver) Learned(int) map[string]string {
	d.spaces.mu.Lock()
	defer d.spaces.mu.Unlock()
	return d.spaces.learned
}

// Restore takes over what Learned said: drivers.Learner.
func (d *driver) Restore(_ int, learned map[string]string) error {
	meant, what := parseNamespaces(learned[namespacesOption])
	if what != "" {
		return fmt.Errorf("%s", what)
	}
	d.spaces.mu.Lock()
	defer d.spaces.mu.Unlock()
	if len(meant) > 0 {
		d.spaces.meant = meant
		d.spaces.publish()
	}
	return nil
}

// Forget has the next connect tell what the indexes stand for: drivers.Learner.
func (d *driver) Forget(int) {
	d.spaces.mu.Lock()
	defer d.spaces.mu.Unlock()
	d.spaces.meant, d.spaces.since = maps.Clone(d.spaces.given), time.Time{}
	d.spaces.now, d.spaces.learned = nil, nil
}

// parseNamespaces reads "2=urn:a 3=urn:b"; what is wrong with it otherwise.
func parseNamespaces(text string) (all map[uint16]string, wrong string) {
	for word := range strings.FieldsSeq(text) {
		index, uri, _ := strings.Cut(word, "=")
		ns, err := strconv.ParseUint(index, 10, 16)
		if err != nil || ns == 0 || uri == "" || len(uri) > maxURI || len(all) == maxIndexes {
			return nil, fmt.Sprintf("namespaces %q: %q is not an index and its namespace, or one too many", clip(text), clip(word))
		}
		if all == nil {
			all = map[uint16]string{}
		}
		all[uint16(ns)] = uri
	}
	return all, ""
}
