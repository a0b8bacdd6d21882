package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers/opcua"
	"millrace/gateway/web"
)

// maxListed bounds what browse lists: as many tags as a group of a config has.
const maxListed = 1 << 17

// What OPC UA itself puts below Objects: the server, in hundreds of nodes, and names for nodes that have a place of their own. What is below them is listed for
// those who ask for it.
const (
	serverObject  = "i=2253"
	aliasesObject = "i=23470"
)

var browseFormats = []string{"tree", "table", "json", "csv", "yaml"}

// browseFlags say what to list, and how.
type browseFlags struct {
	serverFlags
	depth  int
	filter string
	format string
}

func newBrowse(pki *pkiFlags) *cobra.Command {
	f := browseFlags{serverFlags: serverFlags{pki: pki}}
	cmd := &cobra.Command{
		Use:   "browse URL [NODE]",
		Short: "List the nodes of an OPC UA server, as a tree, a table or a device of a config",
		Long: `Browse lists what is below a node, by default below Objects, with data types, units, descriptions and what the user may do, as far as
the server tells. Addresses name the namespace by its URI, which stays when its index does not. -o yaml prints the variables as a
device that a config can include; what describes a variable (its range, its unit) and what the user may not read is no tag. What OPC UA
itself puts below Server (i=2253) and Aliases (i=23470) is listed only when NODE is one of them.

` + ownSession,
		Example: `  millrace opcua browse opc.tcp://192.168.1.20:4840 --depth 2
  millrace opcua browse opc.tcp://192.168.1.20:4840 --filter speed -o table
  millrace opcua browse opc.tcp://192.168.1.20:4840 "ns=2;s=Spindle" -o yaml > devices/cnc-1.yaml`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			node := ""
			if len(args) == 2 {
				node = args[1]
			}
			if !slices.Contains(browseFormats, f.format) {
				return fmt.Errorf("output %q is unknown; use one of %s", f.format, strings.Join(browseFormats, ", "))
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			return failed(f.browse(ctx, cmd.OutOrStdout(), args[0], node))
		},
	}
	f.register(cmd)
	cmd.Flags().IntVar(&f.depth, "depth", 5, "levels below the node, 1 to 32")
	cmd.Flags().StringVar(&f.filter, "filter", "", "only variables with this in their path, capitals or not")
	cmd.Flags().StringVarP(&f.format, "output", "o", "tree", "tree, table, json (one object a line), csv or yaml")
	return cmd
}

func (f *browseFlags) browse(ctx context.Context, out io.Writer, url, node string) error {
	if f.depth < 1 || f.depth > 32 {
		return fmt.Errorf("depth %d is out of range; use 1 to 32", f.depth)
	}
	c, err := f.dial(ctx, url, nil, time.Hour, "read")
	if err != nil {
		return err
	}
	defer c.Close()
	w := &nodeWalk{children: c.Children, depth: f.depth, seen: map[string]bool{}}
	top, err := w.walk(ctx, node)
	l := &listing{flags: f, out: out}
	return cmp.Or(err, l.print(url, top), l.nothing(node, w)) // what was found is printed in any case
}

// nothing says why nothing is listed, nil when something is.
func (l *listing) nothing(node string, w *nodeWalk) error {
	where := cmp.Or(node, "Objects")
	if l.listed > 0 {
		return nil
	}
	if len(w.seen) == 0 {
		return fmt.Errorf("there is nothing below %s: it is a variable, or an empty folder; browse the folder that it is in, or Objects without a node", where)
	}
	what, mend := fmt.Sprintf("there is no variable below %s", where), "browse another node, or Objects without a node"
	looked := fmt.Sprintf("%s looked at", web.Count(uint64(len(w.seen)), "node"))
	if l.flags.filter != "" {
		what, mend = fmt.Sprintf("no variable below %s has %q in its path, capitals or not", where, l.flags.filter), "try a shorter --filter, or another node"
		looked += fmt.Sprintf(", %s among them", web.Count(uint64(l.variables), "variable"))
	}
	if w.closed > 0 {
		looked += fmt.Sprintf(", and %d may have more below", w.closed)
		mend = fmt.Sprintf("look deeper with --depth, now %d", l.flags.depth)
	}
	if w.server {
		mend += "; what describes the server itself is below " + serverObject
	}
	return fmt.Errorf("%s: %s; %s", what, looked, mend)
}

// place is a node where the walk met it first.
type place struct {
	opcua.Child
	path  string
	about bool // it describes a variable
	level int  // 0 = right below where the walk began
	below []*place
}

// nodeWalk goes down from a node, level by level: each node has its place on a shortest path. Paths that only say where events come from count
// when there is no other.
type nodeWalk struct {
	children func(ctx context.Context, node string) ([]opcua.Child, error)
	depth    int
	seen     map[string]bool // nodes
	closed   int             // nodes below which was not looked
	server   bool            // the Server object is one of them
}

// walk returns a place that stands for the node, with all that is below it; when an error ends it, with what was found.
func (w *nodeWalk) walk(ctx context.Context, node string) (*place, error) {
	type source struct {
		above *place
		child opcua.Child
	}
	top := &place{Child: opcua.Child{}, level: -1}
	top.ID = node
	next := []*place{top}
	var sources []source
	for len(next) > 0 {
		above := next[0]
		next = next[1:]
		if ctx.Err() != nil {
			return top, errInterrupted
		}
		children, err := w.children(context.WithoutCancel(ctx), above.ID) // a request that is given up costs the connection
		for _, c := range children {
			switch {
			case w.seen[c.ID] || c.ID == "":
			case len(w.seen)+len(sources) == maxListed:
				return top, fmt.Errorf("there are more than %d nodes; browse one of those listed", maxListed)
			case c.Source:
				sources = append(sources, source{above, c})
			default:
				next = w.put(next, above, c)
			}
		}
		if err != nil {
			return top, err
		}
		for len(next) == 0 && len(sources) > 0 {
			if s := sources[0]; !w.seen[s.child.ID] {
				next = w.put(next, s.above, s.child)
			}
			sources = sources[1:]
		}
	}
	return top, nil
}

// put gives a node its place, and appends it to what is to be gone down from.
func (w *nodeWalk) put(next []*place, above *place, c opcua.Child) []*place {
	w.seen[c.ID] = true
	p := &place{Child: c, path: strings.TrimPrefix(above.path+"."+c.Name, "."), level: above.level + 1,
		about: above.about || c.Property && above.Class == "variable"}
	above.below = append(above.below, p)
	switch {
	case c.Class == "method":
	case c.ID == aliasesObject:
	case c.ID == serverObject:
		w.server = true
	case p.level+1 >= w.depth:
		w.closed++
	default:
		return append(next, p)
	}
	return next
}
