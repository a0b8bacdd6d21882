package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

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
				if buffer.Inside(args[0], s.dir) {
					return fmt.Errorf("%q lies in the store %q: a copy there would share its end, and stand among its files; give a directory outside of it", args[0], s.dir)
				}
				err := buffer.WriteBackup(args[0], func(file func(string, int64, io.Reader) error) error { return s.Backup(ctx, file) })
				if err != nil {
					return err
				}
				return verifyCopy(ctx, cmd, s.dir, args[0])
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
backup and not delivered are not in it: the gateway says so at its start, and until somebody says ` + "`millrace ack`" + `.`,
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
			err := restore(cmd, args[0], to)
			var coded *exitError
			if err != nil && !errors.As(err, &coded) {
				err = &exitError{exitFailed, fmt.Errorf("restore %q: %w", args[0], err)}
			}
			return err
		},
	}
}

func restore(cmd *cobra.Command, from, to string) error {
	if buffer.Inside(to, from) {
		return fmt.Errorf("the store would be %q, which lies in the backup: move the backup elsewhere, or give the store another directory", to)
	}
	err := buffer.WriteBackup(to, func(file func(string, int64, io.Reader) error) error {
		return buffer.BackupDir(cmd.Context(), from, file)
	})
	if err != nil {
		return err
	}
	return verifyCopy(cmd.Context(), cmd, from, to)
}

// verifyCopy reads a copy that was just written, and says what it has.
func verifyCopy(ctx context.Context, cmd *cobra.Command, from, to string) error {
	ro, err := buffer.OpenReadOnly(to)
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
	for i := range v.Problems {
		whose(&v.Problems[i], from, to)
	}
	return printVerification(cmd, v)
}

// whose names the file that a problem of a copy is in: that of the source, when it is as in the copy.
func whose(p *buffer.Problem, from, to string) {
	theirs, ours := filepath.Join(from, p.File), filepath.Join(to, p.File)
	if !sameContent(theirs, ours) {
		p.File = ours
		return
	}
	p.Reason = strings.ReplaceAll(p.Reason, ours, theirs) + "; it is so in what was copied, and the copy is as that is"
	p.File = theirs
}

// sameContent reports whether two files hold the same, or neither is there.
func sameContent(a, b string) bool {
	x, err := os.Open(a)
	y, err2 := os.Open(b)
	if err != nil || err2 != nil {
		_, _ = x.Close(), y.Close()
		return errors.Is(err, os.ErrNotExist) && errors.Is(err2, os.ErrNotExist)
	}
	defer func() { _, _ = x.Close(), y.Close() }() // nothing was written
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(x, p)
		m, err2 := io.ReadFull(y, q)
		switch {
		case !bytes.Equal(p[:n], q[:m]):
			return false
		case err != nil || err2 != nil: // both files end here, or one of them cannot be read
			ends := func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
			return ends(err) && ends(err2)
		}
	}
}
