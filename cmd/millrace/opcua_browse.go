package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"millrace/drivers"
	"millrace/drivers/opcua"
	"millrace/gateway/web"
)

// maxListed bounds what browse lists: as many tags as a group of a config has.
const maxListed = 1 << 17

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
		Short: "List the nodes of an OPC UA server, as a tree or as a device of a config",
		Long: `Browse lists what is below a node, by default below Objects. With -o yaml it prints the variables as a device that a config can
include; addresses name the namespace by its URI, which stays when its index does not. --option takes the keys of a device of a
config: the server must be trusted, or --option security_policy=none.`,
		Example: `  millrace opcua browse opc.tcp://192.168.1.20:4840 --depth 2
  millrace opcua browse opc.tcp://192.168.1.20:4840 "ns=2;s=Spindle" -o yaml > devices/cnc-1.yaml`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			node := ""
			if len(args) == 2 {
				node = args[1]
			}
			return failed(f.browse(cmd.Context(), cmd.OutOrStdout(), args[0], node))
		},
	}
	f.register(cmd)
	cmd.Flags().IntVar(&f.depth, "depth", 5, "levels below the node, 1 to 32")
	cmd.Flags().StringVar(&f.filter, "filter", "", "only variables with this in their path, capitals or not")
	cmd.Flags().StringVarP(&f.format, "output", "o", "tree", "tree or yaml")
	return cmd
}

func (f *browseFlags) browse(ctx context.Context, out io.Writer, url, node string) error {
	switch {
	case f.depth < 1 || f.depth > 32:
		return fmt.Errorf("depth %d is out of range; use 1 to 32", f.depth)
	case f.format != "tree" && f.format != "yaml":
		return fmt.Errorf("output %q is unknown; use tree or yaml", f.format)
	}
	options, err := f.device("read")
	if err != nil {
		return err
	}
	d, err := opcua.Protocol().New(drivers.Connection{URL: url, Devices: []drivers.Device{{Name: "server", URL: url, Timeout: f.timeout, Options: options}}})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Connect(ctx); err != nil {
		return err
	}
	w := &nodeWalk{flags: f, out: out, browser: d.(drivers.Browser), seen: map[string]bool{}, names: map[string]bool{}}
	if f.format == "yaml" {
		w.head(url)
	}
	if err := w.below(ctx, node, "", 0); err != nil {
		return err
	}
	return cmp.Or(w.found(node), w.err)
}

// found says why nothing is listed, nil when something is.
func (w *nodeWalk) found(node string) error {
	where := cmp.Or(node, "Objects")
	if w.listed > 0 {
		return nil
	}
	if len(w.seen) == 0 {
		return fmt.Errorf("there is nothing below %s: it is a variable, or an empty folder; browse the folder that it is in, or Objects without a node", where)
	}
	what, mend := fmt.Sprintf("there is no variable below %s", where), "browse another node, or Objects without a node"
	looked := fmt.Sprintf("%s looked at", web.Count(uint64(len(w.seen)), "node"))
	if w.flags.filter != "" {
		what, mend = fmt.Sprintf("no variable below %s has %q in its path, capitals or not", where, w.flags.filter), "try a shorter --filter, or another node"
		looked += fmt.Sprintf(", %s among them", web.Count(uint64(w.variables), "variable"))
	}
	if w.closed > 0 {
		looked += fmt.Sprintf(", and %d may have more below", w.closed)
		mend = fmt.Sprintf("look deeper with --depth, now %d", w.flags.depth)
	}
	return fmt.Errorf("%s: %s; %s", what, looked, mend)
}

// nodeWalk goes down from a node, each node once.
type nodeWalk struct {
	flags   *browseFlags
	out     io.Writer
	browser drivers.Browser
	seen    map[string]bool // nodes
	names   map[string]bool // of tags
	err     error

	listed, variables int
	closed            int // nodes below which was not looked
}

func (w *nodeWalk) printf(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.out, format, args...)
	}
}

func (w *nodeWalk) head(url string) {
	w.printf("- name: server\n  driver: opcua\n  url: %s\n", strconv.Quote(url))
	for _, o := range opcua.Protocol().DeviceOptions {
		if v, ok := w.flags.options[o.Name]; ok && !o.Secret {
			w.printf("  %s: %s\n", o.Name, strconv.Quote(v))
		}
	}
	w.printf("  groups:\n    - name: all\n      interval: 1s\n      tags:\n")
}

func (w *nodeWalk) below(ctx context.Context, node, path string, level int) error {
	for n, err := range w.browser.Browse(ctx, node) {
		if err != nil {
			return err
		}
		if w.seen[n.ID] || n.ID == "" {
			continue
		}
		w.seen[n.ID] = true
		if len(w.seen) > maxListed {
			return fmt.Errorf("there are more than %d nodes; browse one of those listed", maxListed)
		}
		own := strings.TrimPrefix(path+"."+n.Name, ".")
		w.show(&n, own, level)
		switch {
		case n.Type == "method":
		case level+1 >= w.flags.depth:
			w.closed++
		default:
			if err := w.below(ctx, n.ID, own, level+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *nodeWalk) show(n *drivers.Node, path string, level int) {
	wanted := n.Address != "" && strings.Contains(strings.ToLower(path), strings.ToLower(w.flags.filter))
	if n.Address != "" {
		w.variables++
	}
	if wanted {
		w.listed++
	}
	switch {
	case w.flags.format == "tree" && n.Address == "" && w.flags.filter == "":
		w.printf("%s%s  %s\n", strings.Repeat("  ", level), clean(n.Name), clean(n.ID))
	case w.flags.format == "tree" && wanted:
		w.printf("%s%s = %s\n", strings.Repeat("  ", level), clean(n.Name), clean(n.Address))
	case wanted:
		name := path
		if len(name) > 200 { // names have 255 bytes at most
			name = n.Name[max(0, len(n.Name)-200):]
		}
		for i := 2; w.names[name]; i++ {
			name = fmt.Sprintf("%s %d", path, i)
		}
		w.names[name] = true
		w.printf("        - {name: %s, address: %s}\n", quoteYAML(name), quoteYAML(n.Address))
	}
}

// quoteYAML writes a text that came from a server as a YAML scalar: Go's escapes are YAML's, and ${ stands for something in a config.
func quoteYAML(s string) string {
	return strings.ReplaceAll(strconv.Quote(strings.ToValidUTF8(s, "?")), "${", "$${")
}
