package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"millrace/buffer"
	"millrace/gateway/config"
	"millrace/gateway/web"
)

func newBufferBackup(f *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "backup DIR",
		Short: "Copy the store into a new directory, also of a running gateway, and verify the copy",
		Long: `Write a copy of the store as of one moment into DIR, which must be empty or not there, and verify it. The gateway goes
on meanwhile. The copy has what no destination had acknowledged by then, the ledger and the quarantine.
A gateway may be started on the copy, beside the first one or in its place: each start is a new epoch, so that what it
says anew is never taken for something that the other one said.
Exit 0 when the copy is sound, 1 when something in it is damaged or it could not be written.`,
		Example: `  millrace buffer backup /mnt/usb/press-shop --config millrace.yaml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(cmd, func(ctx context.Context, s *openedStore) error {
				err := buffer.WriteBackup(args[0], func(file func(string, int64, io.Reader) error) error { return s.Backup(ctx, file) })
				if err != nil {
					return err
				}
				return verifyCopy(ctx, cmd, args[0])
			})
		},
	}
}

func newBufferRestore(f *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "restore DIR",
		Short: "Put a backup in the place of the store; no gateway may run on it",
		Long: `Copy the backup in DIR to where the config, or --path, says the store is, which must be empty or not there, and verify
it. What was delivered since the backup is sent again, under the same epoch and numbers; readings taken since the
backup and not delivered are not in it.`,
		Example: `  mv /var/lib/millrace /var/lib/millrace.old
  millrace buffer restore /mnt/usb/press-shop --config millrace.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to := f.path
			if to == "" {
				cfg, err := config.Load(f.file, protocols(), config.Options{})
				if err != nil {
					return &exitError{exitFailed, fmt.Errorf("%w\nThe config is only needed to find the store; --path DIR does without it", err)}
				}
				to = cfg.Buffer.Path
			}
			err := buffer.WriteBackup(to, func(file func(string, int64, io.Reader) error) error {
				return buffer.BackupDir(cmd.Context(), args[0], file)
			})
			if err == nil {
				err = verifyCopy(cmd.Context(), cmd, to)
			}
			var coded *exitError
			if err != nil && !errors.As(err, &coded) {
				err = &exitError{exitFailed, fmt.Errorf("restore %q: %w", args[0], err)}
			}
			return err
		},
	}
}

// verifyCopy reads a copy that was just written, and says what it has.
func verifyCopy(ctx context.Context, cmd *cobra.Command, dir string) error {
	ro, err := buffer.OpenReadOnly(dir)
	if err != nil {
		return err
	}
	defer ro.Close()
	v, err := ro.Verify(ctx, nil)
	if err != nil {
		return err
	}
	for _, d := range ro.Stats().Destinations {
		fmt.Fprintf(cmd.OutOrStdout(), "destination %q: %s not delivered\n", d.Name, web.Count(uint64(d.Backlog), "record"))
	}
	return printVerification(cmd, v)
}
