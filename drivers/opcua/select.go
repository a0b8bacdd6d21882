package opcua

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Bounds of looking for what a rule selects.
const (
	maxWalked   = 50_000  // nodes
	maxWalkText = 8 << 20 // bytes of their ids and paths
	maxPath     = 512     // bytes of a path
	maxTagName  = 200     // bytes of a tag's name: the end of a longer path
	maxTogether = 20      // nodes below which is looked in one request
	walkTime    = 200 * time.Millisecond
)

// Select goes on with looking for what the rule of a group selects: drivers.Selector.
func (d *driver) Select(ctx context.Context, ref drivers.Ref) (s drivers.Selection, err error) {
	defer caught(&err)
	g := &d.groups[ref.Device][ref.Group]
	switch {
	case g.rule == nil:
		return drivers.Selection{Done: true}, nil
	case d.link == nil:
		return s, fmt.Errorf("%w: not connected", drivers.ErrLink)
	case g.walk == nil:
		names, err := d.namespaces(ctx)
		if err != nil {
			return s, d.broken(err)
		}
		d.spaces.look(names, time.Now())
		d.doubt()
		if why := d.spaces.strays(g.rule); why != "" {
			return s, unfit(why)
		}
		if d.lost.often(ruleOf(ref)) {
			return s, unfit("the server drops the connection, or does not answer, when its nodes are looked through; it is looked again after an hour")
		}
		g.walk = newWalk(g.rule, names)
		g.walk.known = g.known()
	}
	defer func(most int) { d.most = most }(d.most) // what is asked here may be refused for its number where values are not
	c := &Client{driver: d, typeNames: map[string]string{}}
	for begin := time.Now(); !g.walk.over(); {
		if err := g.walk.step(ctx, c); err != nil {
			g.walk = nil
			down := d.link.channel.Err()
			if d.lost.note(ruleOf(ref), down); down == nil {
				return s, unfit(err.Error())
			}
			return s, d.broken(err)
		}
		if time.Since(begin) > walkTime {
			return s, ctx.Err()
		}
	}
	d.lost.note(ruleOf(ref), nil)
	s, g.walk = g.walk.selection(), nil
	return s, nil
}

// ruleOf names the rule of a group in lapsed.
func ruleOf(ref drivers.Ref) string { return fmt.Sprintf("rule of group %d", ref.Group) }

// walk goes down from the root of a rule, level by level, so that each node has its place on a shortest path. It stops where the rule has all that it may.
type walk struct {
	*rule
	names []string          // the server's namespaces
	known map[string]string // addresses of the group's tags as the config has them, by encoded node

	next   []spot   // nodes below which was not looked
	begun  []begun  // of which the server has not said all
	looked []looked // variables of which it is not known yet what they are
	found  []found

	together int    // nodes below which is looked in one request
	each     uint32 // and references that one of them may answer with
	seen     map[string]bool
	bytes    int
	closed   int // nodes that the server does not let us look below
	left     leftOut
	crowded  bool // there are too many nodes
	many     bool // there are more tags than the rule may have
}

// spot is a node below which to look.
type spot struct {
	id, path string
	level    int // -1 = the root
}

// begun is where the server goes on below a node.
type begun struct {
	spot
	point []byte
}

// looked is a variable at its place.
type looked struct {
	Child
	path string
}

// found is a variable that becomes a tag.
type found struct{ path, address string }

func newWalk(r *rule, names []string) *walk {
	return &walk{rule: r, names: names, next: []spot{{id: r.root, level: -1}}, together: maxTogether, each: maxBrowsed, seen: map[string]bool{}}
}

// known returns how the config has the nodes of the group's tags, which have more than one address.
func (g *group) known() map[string]string {
	all := map[string]string{}
	for tag, ask := range g.ask.ids {
		if ask != nil {
			all[string(askedNode(ask))] = g.written[tag]
		}
	}
	return all
}

func (w *walk) over() bool {
	return w.many || w.crowded || len(w.next)+len(w.begun)+len(w.looked) == 0
}

// step makes one request for nodes, or a few for what some of them are. An error is of the link, or of the root.
func (w *walk) step(ctx context.Context, c *Client) error {
	switch {
	case len(w.looked) > 0:
		return w.inspect(ctx, c)
	case len(w.begun) > 0:
		from := w.begun[0]
		w.begun = w.begun[1:]
		return w.browse(ctx, c, id.BrowseNextRequest_Encoding_DefaultBinary, id.BrowseNextResponse_Encoding_DefaultBinary, encodeBrowseNext(from.point, false), []spot{from.spot})
	}
	spots := w.next[:min(w.together, len(w.next))]
	w.next = w.next[len(spots):]
	nodes := make([][]byte, len(spots))
	for i, s := range spots {
		var err error
		if nodes[i], err = c.node(ctx, s.id, w.names); err != nil { // the root: other ids are the server's own
			return err
		}
	}
	return w.browse(ctx, c, id.BrowseRequest_Encoding_DefaultBinary, id.BrowseResponse_Encoding_DefaultBinary, encodeBrowseMany(nodes, w.each), spots)
}

// browse asks for the nodes below some. Where the server refuses so many, it is asked for fewer.
func (w *walk) browse(ctx context.Context, c *Client, kind, answer uint16, ask func([]byte) ([]byte, error), spots []spot) error {
	r, err := c.link.call(ctx, kind, answer, ask)
	if err == nil && r.Count(9) != len(spots) {
		err = protocolError("the server answered about other nodes than it was asked for")
	}
	for i := 0; err == nil && i < len(spots); i++ {
		var nodes []Child
		var point []byte
		nodes, point, err = r.below(w.names)
		switch {
		case r.Err != nil:
			err = r.Err
			spots = spots[i:]
			continue
		case err == errNoPoint && len(spots) > 1:
			w.together = 1
			w.next = append([]spot{spots[i]}, w.next...)
		case err != nil && spots[i].level < 0:
			return err
		case err != nil:
			w.closed++
		case len(point) > 0:
			w.begun = append(w.begun, begun{spots[i], bytes.Clone(point)})
		}
		err = nil
		w.look(&spots[i], nodes)
	}
	switch {
	case err == nil:
	case c.link.channel.Err() != nil || len(spots) == 1 && spots[0].level < 0:
		return err
	case len(spots) > 1:
		w.together = len(spots) / 2
		w.next = slices.Concat(spots, w.next)
	default:
		w.closed++
	}
	return nil
}

// look gives nodes their places, but for those that the rule leaves out with all below them.
func (w *walk) look(above *spot, nodes []Child) {
	for _, n := range nodes {
		path := pathBelow(above.path, n.Name)
		if !usable(n.ID) || n.Source || w.seen[n.ID] || len(path) > maxPath {
			continue
		}
		w.left.nodes++
		w.left.unlike.see(w.rule, path, n.Class == "variable")
		if pattern := w.skips(path); pattern >= 0 {
			w.left.exclude(pattern)
			continue
		}
		if len(w.seen) == maxWalked || w.bytes+len(n.ID)+len(path) > maxWalkText {
			w.crowded = true
			return
		}
		w.seen[n.ID] = true
		w.bytes += len(n.ID) + len(path)
		w.place(n, path, above.level+1)
	}
}

// place remembers a variable that may become a tag, and below what to look.
func (w *walk) place(n Child, path string, level int) {
	if n.Class == "variable" {
		switch {
		case !w.classed(n.Property):
			w.left.class++
		case !w.includes(path):
			w.left.include(path)
		default:
			w.looked = append(w.looked, looked{n, path})
		}
	}
	switch {
	case n.Class == "method" || standardBranch(n.ID):
	case level+1 < w.depth:
		w.next = append(w.next, spot{n.ID, path, level})
	case n.Class != "variable":
		w.left.deep++
	}
}

// usable reports whether a node's id can stand in a config.
func usable(address string) bool {
	_, m := parseAddress(address)
	return m == nil
}

// standardBranch reports whether a node is one of those that OPC UA itself puts below Objects: the server, in hundreds of nodes, and names for nodes that
// have a place of their own.
func standardBranch(node string) bool {
	return node == fmt.Sprintf("i=%d", id.Server) || node == "i=23470" // Aliases (OPC 10000-17)
}

// inspect asks what some variables are, and takes those that the rule wants and the user may read.
func (w *walk) inspect(ctx context.Context, c *Client) error {
	some := w.looked[:min(inspected, len(w.looked))]
	w.looked = w.looked[len(some):]
	nodes := make([]Child, len(some))
	for i := range some {
		nodes[i] = some[i].Child
	}
	if err := c.inspect(ctx, nodes); err != nil {
		return err
	}
	for i := range nodes {
		switch n := &nodes[i]; {
		case !w.typed(n):
			w.left.mistype(n.Type)
		case n.Access != "" && !strings.Contains(n.Access, "read"):
			w.left.access++
		case len(w.found) == w.most:
			w.many = true
			return nil
		default:
			w.found = append(w.found, found{some[i].path, cmp.Or(w.known[string(n.node)], n.Address)})
		}
	}
	return nil
}

// selection returns what was found, in the order of the paths.
func (w *walk) selection() drivers.Selection {
	slices.SortFunc(w.found, func(a, b found) int {
		return cmp.Or(strings.Compare(a.path, b.path), strings.Compare(a.address, b.address))
	})
	s := drivers.Selection{Done: true, Most: w.most, Whole: !w.many && !w.crowded && w.closed == 0}
	s.Cut, s.Mend = w.cut()
	s.Note = w.note(s.Cut, s.Mend)
	for _, f := range w.found {
		s.Tags = append(s.Tags, telemetry.Tag{Name: tagName(f.path), Address: f.address})
	}
	return s
}

// cut says which bound the rule has met, and what to do about it.
func (w *walk) cut() (what, mend string) {
	switch {
	case w.many:
		return fmt.Sprintf("selects more than %s, and the rest is left out", telemetry.Count(w.most, "tag")), "narrow it by browse_include, browse_exclude or browse_depth, or raise browse_max"
	case w.crowded:
		return fmt.Sprintf("looks at %d nodes below %s, and there are too many more", len(w.seen), clip(w.root)), "begin at one of them, or leave some out by browse_exclude"
	}
	return "", ""
}

// note says what was left out, and of a rule that selects nothing, why.
func (w *walk) note(cut, mend string) string {
	var all []string
	switch {
	case cut != "":
		all = append(all, "it "+cut+"; "+mend)
	case w.closed > 0:
		all = append(all, "the server does not let us look below "+telemetry.Count(w.closed, "node"))
	}
	switch unlike := w.left.unlike.words(); {
	case len(w.found) == 0:
		all = append(all, w.left.words(w.rule))
	case cut == "" && unlike != "":
		all = append(all, unlike)
	}
	return strings.Join(all, "; ")
}

// tagName is the name of a tag by its path: one line of text, the end of it where it is long.
func tagName(path string) string {
	path = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(path, "?"))
	if n := len(path) - maxTagName; n > 0 {
		for !utf8.RuneStart(path[n]) {
			n++
		}
		path = path[n:]
	}
	return cmp.Or(strings.TrimSpace(path), "?")
}

// errNoPoint is why a server does not say all that is below a node: it keeps no more continuation points.
var errNoPoint = statusError(ua.StatusBadNoContinuationPoints)
