package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"millrace/buffer"
	"millrace/gateway"
	"millrace/gateway/config"
	"millrace/gateway/web"
)

// storeFlags say which store a command is about.
type storeFlags struct{ file, path string }

func newBuffer() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "buffer",
		Short: "Look into the store: status, ls, show, export, verify, backup, restore, quarantine, forget",
		Long: `Look into the store that keeps readings until every destination has them.

The store is that of --config, or the one in the directory --path. While a gateway runs on it the commands ask the
gateway, through a socket in the store's directory that only the gateway's user may open. Otherwise they read the
files. Looking changes nothing; retry, delete and forget say what they change.`,
		Example: `  millrace buffer status --config millrace.yaml
  millrace buffer export --format csv --device press-1 --from 2026-03-01T06:00:00Z >press-1.csv
  millrace buffer verify --path /var/lib/millrace
  millrace buffer quarantine ls`,
	}
	cmd.PersistentFlags().StringVarP(&f.file, "config", "c", "millrace.yaml", "config file; its buffer.path is the store")
	cmd.PersistentFlags().StringVar(&f.path, "path", "", "directory of the store, instead of a config")
	cmd.AddCommand(newBufferStatus(&f), newBufferLs(&f), newBufferShow(&f), newBufferExport(&f), newBufferVerify(&f), newBufferBackup(&f), newBufferRestore(&f),
		newQuarantine(&f), newForget(&f))
	return cmd
}

// openedStore is a store with what the command line knows of it.
type openedStore struct {
	web.Store
	dir string
	cfg *config.Config // nil with --path
}

// on opens the store and calls do with it. SIGINT ends do's context.
func (f *storeFlags) on(cmd *cobra.Command, do func(ctx context.Context, s *openedStore) error) error {
	ctx, stop := interruptible(cmd)
	defer stop()
	s := &openedStore{dir: f.path}
	var maxSize int64
	if f.path == "" {
		cfg, err := config.Load(f.file, protocols(), config.Options{})
		if err != nil {
			return &exitError{exitFailed, fmt.Errorf("%w\nThe config is only needed to find the store; --path DIR does without it", err)}
		}
		s.cfg, s.dir, maxSize = cfg, cfg.Buffer.Path, cfg.Buffer.MaxSize
	}
	var err error
	if s.Store, err = web.OpenStore(ctx, s.dir, maxSize); err != nil {
		if why, _ := gateway.DiskTrouble(s.dir); why != "" && errors.Is(err, buffer.ErrNotFound) {
			err = fmt.Errorf("%w; none can be made now: %s", err, why)
		}
		return &exitError{exitFailed, err}
	}
	err = do(ctx, s)
	for _, found := range s.Found() {
		fmt.Fprintf(cmd.ErrOrStderr(), "damaged, found while the store was opened; the next start of the gateway tells of what is lost with it: %s\n", found)
	}
	err = errors.Join(err, s.Close())
	var coded *exitError
	if err != nil && !errors.As(err, &coded) {
		err = &exitError{exitFailed, err}
	}
	return err
}

// status is the store's, completed by what its disk and the config say of a store that nobody runs on.
func (s *openedStore) status(ctx context.Context) (*web.StoreStatus, error) {
	st, err := s.Status(ctx)
	if err != nil || st.Running {
		return st, err
	}
	if why, _ := gateway.DiskTrouble(s.dir); why != "" && st.Stats.Health == web.HealthOK {
		st.Stats.Health = "failing: " + why
	}
	if s.cfg == nil {
		return st, nil
	}
	st.Gateway, st.Stats.MaxBytes = s.cfg.Gateway, s.cfg.Buffer.MaxSize
	for i := range st.Stats.Destinations {
		d := &st.Stats.Destinations[i]
		d.Configured = s.configured(d.Name)
	}
	return st, nil
}

func (s *openedStore) configured(name string) bool {
	for i := range s.cfg.Destinations {
		if s.cfg.Destinations[i].Name == name {
			return true
		}
	}
	return false
}

func newBufferVerify(f *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Read the whole store and check every checksum; exit 1 when something is damaged, or was and nobody has said `ack`",
		Long: `Read every segment, record block, dictionary and the quarantine, and check every checksum and count. Nothing is
changed: a gateway sets damaged files aside by itself when it meets them, and serves what is sound.
Exit 0 when all is sound, 1 while a file that lies there is damaged (also one set aside, *.corrupt: delete it once you have looked at it) or cannot be
read, or nobody has said ` + "`millrace ack`" + ` to what damage has cost; with sound files that word makes it 0 at once.`,
		Example: "  millrace buffer verify --config millrace.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.on(cmd, func(ctx context.Context, s *openedStore) error {
				p := newProgress("verified")
				v, err := s.Verify(ctx, p.bytes)
				p.end()
				if err != nil {
					return err
				}
				if stopped, ok := s.Store.(interface {
					Note() []byte
					Ledger() []buffer.Account
					Stats() buffer.Stats
				}); ok {
					v.Unseen = gateway.UnseenDamage(s.dir, stopped.Note(), stopped.Ledger(), stopped.Stats().LostUnknown)
				}
				return printVerification(cmd, v)
			})
		},
	}
}

func printVerification(cmd *cobra.Command, v *buffer.Verification) error {
	out := planWriter{w: cmd.OutOrStdout()}
	for _, p := range v.Problems {
		out.printf("damaged: %s", p.File)
		if p.LastSeq >= p.FirstSeq && p.LastSeq > 0 {
			out.printf(" (records %d to %d)", p.FirstSeq, p.LastSeq)
		}
		out.printf(": %s\n", p.Reason)
	}
	out.printf("%s, %s, %s read\n", web.Count(uint64(v.Segments), "segment"), size(float64(v.Bytes)), web.Count(uint64(v.Records), "record"))
	for _, text := range v.Unseen {
		out.printf("lost: %s\n", text)
	}
	if len(v.Problems)+len(v.Unseen) == 0 {
		out.printf("ok\n")
		return out.err
	}
	out.printf("%d damaged; everything sound is still delivered\n", len(v.Problems))
	return errors.Join(&exitError{exitFailed, errSaid}, out.err)
}

func newForget(f *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "forget DESTINATION",
		Short: "Give up a destination that is not in the config any more",
		Long: `A destination taken out of the config gets nothing new and keeps in the store what it had not acknowledged, in case it
comes back; a full store gives that up first. Forget
gives it up at once, and says how many records and readings were waiting for it, and from when to when: those that only it was waiting
for are removed, and its rows of the ledger end with it, so that they stand nowhere else. A destination that is still configured is refused.`,
		Example: "  millrace buffer forget old-cloud --config millrace.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.on(cmd, func(ctx context.Context, s *openedStore) error {
				if s.cfg != nil && s.configured(args[0]) {
					return fmt.Errorf("forget destination %q: it is in the config; take it out first", args[0])
				}
				gone, err := s.Forget(ctx, args[0])
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "destination %q forgotten; %s\n", args[0], &gone)
				return nil
			})
		},
	}
}
