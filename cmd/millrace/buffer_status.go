package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/buffer"
	"millrace/gateway"
	"millrace/gateway/web"
)

func newBufferStatus(f *storeFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Size, backlog of each destination, health, quarantine and the ledger of each device",
		Long: `Show the store as it is, of a running gateway and of a stopped one. Exit 0 when it could be looked at, whatever it says of it:
` + "`millrace buffer verify`" + ` is the command that judges the files, and ` + "`millrace health`" + ` the gateway, by their exit codes.`,
		Example: `  millrace buffer status --config millrace.yaml
  millrace buffer status --path /var/lib/millrace --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.on(cmd, func(ctx context.Context, s *openedStore) error {
				st, err := s.status(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					enc := json.NewEncoder(cmd.OutOrStdout())
					enc.SetIndent("", "  ")
					return enc.Encode(st)
				}
				out := planWriter{w: cmd.OutOrStdout()}
				out.store(s, st)
				out.destinations(st)
				out.ledger(st.Ledger)
				return out.err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything as one JSON object")
	return cmd
}

func (p *planWriter) store(s *openedStore, st *web.StoreStatus) {
	b := &st.Stats
	state := "no gateway runs on it"
	if _, waits := gateway.DiskTrouble(s.dir); waits {
		state += ", or one waits to be started until its disk is seen to"
	}
	if st.Holder != "" {
		state = st.Holder + " has it open, but no gateway answers at its socket; these are the files without what it has in memory"
	}
	if st.Running {
		state = fmt.Sprintf("gateway %q (%s) runs on it", st.Gateway, st.Version)
	}
	for i := range st.States {
		p.printf("%s\n", &st.States[i])
	}
	p.printf("store %s: %s\n", s.dir, state)
	p.printf("  epoch       %s, next sequence number %d\n", b.Epoch, b.NextSeq)
	if b.MaxBytes > 0 {
		p.printf("  size        %s of %s (%.1f %%), %s\n", size(float64(b.Bytes)), size(float64(b.MaxBytes)), 100*float64(b.Bytes)/float64(b.MaxBytes), web.Count(uint64(b.Segments), "segment"))
	} else {
		p.printf("  size        %s, %s (max_size stands in the config)\n", size(float64(b.Bytes)), web.Count(uint64(b.Segments), "segment"))
	}
	if st.Running {
		p.printf("  room        %s\n", roomText(b))
		p.printf("  in memory   %s, %s, of them not on disk yet %d\n", web.Count(uint64(b.TailRecords), "record"), size(float64(b.TailBytes)), b.DirtyRecords)
		p.printf("  written     %s since the start, %s, %d failed\n", size(float64(b.BytesWritten)), web.Count(uint64(b.Commits), "commit"), b.CommitErrors)
	}
	health := b.Health
	if !b.RefusedUntil.IsZero() {
		health += "; new records were refused from " + b.Refusing.UTC().Format(time.RFC3339) + " until " + b.RefusedUntil.UTC().Format(time.RFC3339)
		if b.Health == web.HealthOK {
			health += ", and there is room again"
		} else {
			health += ", and are taken again"
		}
	} else if !b.Refusing.IsZero() {
		if !b.RefusingDisk {
			health = "full"
		}
		health += "; new records are refused"
		if len(b.RefusingFor) > 0 {
			health += " for " + strings.Join(b.RefusingFor, ", ") + " alone"
		}
		health += " since " + b.Refusing.UTC().Format(time.RFC3339)
	}
	p.printf("  health      %s\n", health)
	if text := gateway.BeforeText(b.Before); text != "" {
		p.printf("  before      %s; a gap message tells of it for each device\n", text)
	}
	if b.Dropped > 0 || b.Refused > 0 {
		p.printf("  dropped     %s, %s refused since the start\n", web.Count(uint64(b.Dropped), "segment"), web.Count(uint64(b.Refused), "record"))
	}
	if st.Quarantine > 0 {
		p.printf("  quarantine  %s that a destination refused: see `millrace buffer quarantine ls`\n", web.Count(uint64(st.Quarantine), "record"))
	}
	for _, d := range b.Damage {
		p.printf("  damage      %s: %s", d.File, d.Reason)
		if d.LastSeq >= d.FirstSeq && d.LastSeq > 0 {
			p.printf(" (records %d to %d)", d.FirstSeq, d.LastSeq)
		}
		p.printf(", readings lost: %s\n", d.Lost())
	}
	if more := b.Damages - uint64(len(b.Damage)); more > 0 {
		p.printf("  damage      and %d more\n", more)
	}
}

// roomText says what of max_size records may still take, which is less than what is free of it.
func roomText(b *buffer.Stats) string {
	const kept = "is kept for state.db and the next commit"
	if !b.Refusing.IsZero() && b.RefusedUntil.IsZero() && !b.RefusingDisk {
		return "none, it is full; what is free of max_size " + kept
	}
	return fmt.Sprintf("%s more of records at most; the rest of what is free of max_size %s", size(float64(b.Room)), kept)
}

func (p *planWriter) destinations(st *web.StoreStatus) {
	for i := range st.Stats.Destinations {
		d := &st.Stats.Destinations[i]
		p.printf("destination %q: backlog %s", d.Name, web.Count(uint64(d.Backlog), "record"))
		if d.InFlight > 0 {
			p.printf(", %d of them in flight", d.InFlight)
		}
		if d.Backlog > 0 {
			p.printf(", oldest %d", d.OldestSeq)
			if d.OldestAt != 0 {
				p.printf(" of about %s", timeText(d.OldestAt))
			}
		}
		p.printf("\n")
		if !d.Configured {
			p.printf("  %s\n", absentText(d))
		}
	}
}

// absentText says what is kept for a destination that is not configured any more.
func absentText(d *buffer.DestinationStats) string {
	if !d.Keeps() {
		return fmt.Sprintf("not configured any more, and nothing is kept for it; `millrace buffer forget %s` takes it off this list, and so does a new destination that finds all %d places of the store taken", d.Name, buffer.MaxDestinations)
	}
	return fmt.Sprintf("not configured any more; %s kept for it until it is back or `millrace buffer forget %s` gives that up", keptText(d), d.Name)
}

// keptText counts what the store keeps for a destination.
func keptText(d *buffer.DestinationStats) string {
	var parts []string
	if d.Backlog > 0 {
		parts = append(parts, web.Count(d.Backlog, "record"))
	}
	if d.Quarantined > 0 {
		parts = append(parts, fmt.Sprintf("%d in quarantine", d.Quarantined))
	}
	if d.Untold > 0 {
		parts = append(parts, web.Count(uint64(d.Untold), "gap message"))
	}
	return strings.Join(parts, " and ")
}

func (p *planWriter) ledger(accounts []buffer.Account) {
	if len(accounts) == 0 {
		return
	}
	p.printf("\nledger, in readings\n")
	w := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "device\tpolled\tsuppressed\taccepted\tdestination\tbefore\tdelivered\tbuffered\tin flight\tdropped\t\n")
	for i := range accounts {
		a := &accounts[i]
		for j := range a.Destinations {
			d := &a.Destinations[j]
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t%s\t\n", a.Name, a.Polled, a.Suppressed, a.Accepted, d.Name,
				d.Before, d.Delivered, d.Buffered, d.InFlight, dropsText(d))
		}
	}
	if err := w.Flush(); err != nil && p.err == nil {
		p.err = err
	}
}

func dropsText(d *buffer.DestinationAccount) string {
	text := fmt.Sprint(d.Lost())
	sep := " ("
	for cause, n := range d.Dropped {
		if n > 0 {
			text += fmt.Sprintf("%s%s %d", sep, buffer.Cause(cause), n)
			sep = ", "
		}
	}
	if sep == ", " {
		text += ")"
	}
	return text
}

func newBufferLs(f *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List the segment files: size, records, sequence numbers and times",
		Example: "  millrace buffer ls --config millrace.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.on(cmd, func(ctx context.Context, s *openedStore) error {
				st, err := s.status(ctx)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprint(w, "file\tsize\trecords\tfirst\tlast\tfrom\tto\tstate\n")
				for _, seg := range st.Segments {
					from, to := "-", "-"
					if seg.Records > 0 {
						from, to = timeText(seg.MinAt), timeText(seg.MaxAt)
					}
					fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", seg.File, size(float64(seg.Bytes)), seg.Records, seg.FirstSeq, seg.LastSeq, from, to, segmentState(&seg))
				}
				if n := st.Stats.TailRecords; n > 0 {
					fmt.Fprintf(w, "(memory)\t%s\t%d\t\t%d\t\t\t\n", size(float64(st.Stats.TailBytes)), n, st.Stats.NextSeq-1)
				}
				return w.Flush()
			})
		},
	}
}

func segmentState(s *buffer.SegmentInfo) string {
	state := "sealed"
	switch {
	case s.Damaged:
		state = "damaged"
	case !s.Sealed:
		state = "being written"
	}
	if !s.Needed {
		state += ", drained"
	}
	return state
}

// timeText writes a time of a record, in milliseconds and UTC.
func timeText(us int64) string {
	return time.UnixMicro(us).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}
