package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers/telemetry"
)

func newOPCUAEvents(pki *pkiFlags) *cobra.Command {
	f := serverFlags{pki: pki}
	var w eventWatch
	cmd := &cobra.Command{
		Use:   "events URL [NODE]",
		Short: "Show the events, alarms and conditions of an OPC UA server as they come",
		Long: `Subscribe the events of a node as a tag with type: event does, by default those of the server itself (i=2253), and show each that comes, until
it is interrupted or for so long as --for says. The conditions that stand are asked for first (ConditionRefresh) and come as
"stands". It ends (exit 1) when the connection is lost, when the node tells no events, or when none came within --for.

` + ownSession,
		Example: `  millrace opcua events opc.tcp://192.168.1.20:4840
  millrace opcua events opc.tcp://192.168.1.20:4840 "ns=2;s=Press" --type i=2915 --min-severity 500 --for 1m -o json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if w.node = serverObject; len(args) == 2 {
				w.node = args[1]
			}
			return w.run(cmd, "event", func(ctx context.Context) error { return w.watch(ctx, cmd.OutOrStdout(), &f, args[0]) })
		},
	}
	f.register(cmd)
	w.register(cmd)
	cmd.Flags().IntVar(&w.severity, "min-severity", 0, "only events that are so severe, 1 to 1000")
	cmd.Flags().StringVar(&w.kind, "type", "", "only events of this type and its subtypes, by `NODEID`, such as i=2915 (alarms) or i=2782 (conditions)")
	return cmd
}

// eventWatch shows the events of a node.
type eventWatch struct {
	pushWatch
	node     string
	kind     string
	severity int
}

// tag is what the gateway would have in its config.
func (w *eventWatch) tag() telemetry.Tag {
	t := telemetry.Tag{Address: w.node, Type: "event", Options: map[string]string{}}
	if w.severity != 0 {
		t.Options["min_severity"] = strconv.Itoa(w.severity)
	}
	if w.kind != "" {
		t.Options["event_type"] = w.kind
	}
	return t
}

func (w *eventWatch) watch(ctx context.Context, out io.Writer, f *serverFlags, url string) error {
	c, err := f.dial(ctx, url, []telemetry.Tag{w.tag()}, 250*time.Millisecond, "subscribe")
	if err != nil {
		return err
	}
	defer c.Close()
	if tells, err := c.TellsEvents(ctx, w.node); err != nil {
		return err
	} else if !tells {
		fmt.Fprintf(os.Stderr, "%s does not say that it tells events, and may have none; i=2253 is the server itself, and millrace opcua browse shows what else\n", safe(w.node))
	}
	p := w.printer(out)
	return w.follow(ctx, c, "events", func(readings []telemetry.Reading) error { return w.take(readings, p) })
}

// take shows the events of a push.
func (w *eventWatch) take(readings []telemetry.Reading, p eventPrinter) error {
	for i := range readings {
		r := &readings[i]
		if r.Quality == telemetry.Bad {
			return fmt.Errorf("%s tells no events: %s", w.node, r.Reason)
		}
		var e shownEvent
		if err := json.Unmarshal([]byte(r.Value.Text), &e); err != nil {
			return fmt.Errorf("BUG: event %q: %w", r.Value.Text, err)
		}
		if e.Subscribed {
			if e.Note != "" {
				w.also = ", and the server does not tell which conditions stand"
			}
			fmt.Fprintf(os.Stderr, "the events of %s come from now on\n", w.node)
			continue
		}
		w.shown++
		e.Time = sourceText(r)
		if err := p.event(&e, r.Value.Text); err != nil {
			return err
		}
	}
	return p.flush()
}

// shownEvent is what a table has of an event: see drivers/opcua/README.md.
type shownEvent struct {
	Type, Time, Source, Name, Message, Limit string
	Note                                     string
	Branch                                   string
	Severity                                 *int
	Enabled, Active, Acked, Retain           *bool
	Refresh, Subscribed                      bool
}

// state says in words how a condition stands, "" for what is none.
func (e *shownEvent) state() string {
	var words []string
	switch {
	case e.Enabled != nil && !*e.Enabled:
		words = append(words, "disabled")
	case e.Active != nil && *e.Active:
		words = append(words, strings.TrimSpace("active "+e.Limit))
	case e.Active != nil:
		words = append(words, "inactive")
	case e.Retain != nil && *e.Retain:
		words = append(words, "retained")
	}
	if e.Branch != "" {
		words = append(words, "earlier")
	}
	if e.Refresh {
		words = append(words, "stands")
	}
	return strings.Join(words, ", ")
}

func yesNo(b *bool) string {
	switch {
	case b == nil:
		return ""
	case *b:
		return "yes"
	}
	return "no"
}

// eventPrinter prints events in one of the formats.
type eventPrinter struct {
	event func(e *shownEvent, text string) error
	flush func() error
}

func (w *eventWatch) printer(out io.Writer) eventPrinter {
	if w.format == "json" {
		return eventPrinter{func(_ *shownEvent, text string) error {
			_, err := fmt.Fprintln(out, text)
			return err
		}, func() error { return nil }}
	}
	t := &table{out: out}
	t.head("TIME", "SEVERITY", "SOURCE", "CONDITION", "STATE", "ACKED", "MESSAGE", "TYPE")
	return eventPrinter{func(e *shownEvent, _ string) error {
		severity := ""
		if e.Severity != nil {
			severity = strconv.Itoa(*e.Severity)
		}
		t.add(e.Time, severity, e.Source, e.Name, e.state(), yesNo(e.Acked), cut(e.Message, 200), e.Type)
		return nil
	}, t.flush}
}
