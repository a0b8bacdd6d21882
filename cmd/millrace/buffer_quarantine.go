package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"millrace/buffer"
	"millrace/gateway/web"
)

func newQuarantine(f *storeFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "Records that a destination refused for good: ls, retry, export, delete",
		Long: `A record that a destination refuses whatever is tried is put into quarantine, so that it does not hold up the
others. It is counted as dropped{rejected}, a gap record tells the destination of it, and it stays here until
somebody retries or deletes it, or until newer ones need its place (1,024 entries, a few megabytes). Its ID is the
sequence number, as in the log and in messages, and the destination: 120560:cloud.`,
	}
	cmd.AddCommand(newQuarantineLs(f), newQuarantineRetry(f), newQuarantineExport(f), newQuarantineDelete(f))
	return cmd
}

func newQuarantineLs(f *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List them with the reason",
		Example: "  millrace buffer quarantine ls --config millrace.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.on(cmd, func(ctx context.Context, s *openedStore) error {
				all, err := s.Quarantine(ctx)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprint(w, "id\tdevice\trecord of\treadings\trefused at\treason\n")
				for _, q := range all {
					reason := q.Reason
					if q.Truncated {
						reason += " (too large to be kept)"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%q\n", q.ID, q.Account, timeText(q.At), q.Readings, timeText(q.RejectedAt.UnixMicro()), reason)
				}
				return w.Flush()
			})
		},
	}
}

func newQuarantineExport(f *storeFlags) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "export --format jsonl|csv",
		Short:   "Write them to standard output, decoded, as `millrace buffer export` does",
		Example: "  millrace buffer quarantine export --format jsonl >refused.jsonl",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			return f.on(cmd, func(ctx context.Context, s *openedStore) error {
				st, err := s.status(ctx)
				if err != nil {
					return err
				}
				all, err := s.Quarantine(ctx)
				if err != nil {
					return err
				}
				e, err := newExporter(cmd.OutOrStdout(), format, st)
				if err != nil {
					return err
				}
				for i, q := range all {
					if err := e.write(stored(i, q)); err != nil {
						return err
					}
				}
				return e.end()
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "jsonl", "jsonl or csv")
	return cmd
}

func stored(i int, q *buffer.Quarantined) *web.StoredRecord {
	return &web.StoredRecord{Stream: &web.StoredStream{ID: i, Device: q.Account, Schema: q.Dict}, Epoch: q.Epoch, Seq: q.Seq, Payload: q.Payload,
		At: q.At, Readings: q.Readings, Gap: q.Gap}
}

func newQuarantineRetry(f *storeFlags) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "retry ID... | --all",
		Short: "Give them to their destination again",
		Long: `Give records in quarantine to their destination again, once its cause is mended. Each gets a new sequence number,
for numbers are never used twice; in the ledger its readings move from dropped{rejected} back to buffered.`,
		Example: `  millrace buffer quarantine retry 120560:cloud
  millrace buffer quarantine retry --all`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			return f.each(cmd, ids, all, func(ctx context.Context, s *openedStore, id string) (string, error) {
				seq, err := s.Retry(ctx, id)
				return fmt.Sprintf("%s goes out again as record %d", id, seq), err
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	return cmd
}

func newQuarantineDelete(f *storeFlags) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "delete ID... | --all",
		Short: "Delete them for good",
		Example: `  millrace buffer quarantine delete 120560:cloud
  millrace buffer quarantine delete --all`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			return f.each(cmd, ids, all, func(ctx context.Context, s *openedStore, id string) (string, error) {
				return id + " deleted", s.Delete(ctx, id)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	return cmd
}

// each does something to the entries named, or to all, and says what. One that fails does not stop the others.
func (f *storeFlags) each(cmd *cobra.Command, ids []string, all bool, do func(context.Context, *openedStore, string) (string, error)) error {
	if all == (len(ids) > 0) {
		return errors.New("give the IDs that `millrace buffer quarantine ls` shows, or --all")
	}
	return f.on(cmd, func(ctx context.Context, s *openedStore) error {
		if all {
			list, err := s.Quarantine(ctx)
			if err != nil {
				return err
			}
			for _, q := range list {
				ids = append(ids, q.ID)
			}
		}
		var failed error
		for _, id := range ids {
			what, err := do(ctx, s, id)
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			fmt.Fprintln(cmd.OutOrStdout(), what)
		}
		return failed
	})
}
