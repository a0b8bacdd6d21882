package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"millrace/gateway/web"
)

func newReload() *cobra.Command {
	var at gatewayFlags
	cmd := &cobra.Command{
		Use:   "reload --config FILE",
		Short: "Tell the running gateway to load its config again, and say what changed",
		Long: `Reload tells the gateway that runs on the config's store to load its config file again. What did not change goes on
untouched: its polls stay on time, its sessions stay open. Only what was added, changed or removed starts, restarts or stops.

Either all of the new config is put into force, or nothing: a config with a mistake is refused with what ` + "`millrace check`" + `
says of it, and the old one runs on. So is a change of gateway, buffer.*, processors or log.format: those need a restart.
A destination that is taken out gets no new readings and keeps in the store what it has not acknowledged; ` + "`millrace buffer forget`" + `
gives that up, and so does a full store, before anything that others need. Put back, it goes on with what is left and then with
new readings. One that is renamed is taken out and added: nothing goes over to the new name. Secrets are read again from files; a variable of the environment is the gateway's own, from its start.

Exit 0 when the new config is in force, 1 when it is not, with the reason. SIGHUP does the same; then the reason stands in
the log, on the page and in /metrics only. The gateway never reloads on its own because a file changed.`,
		Example: `  millrace reload --config /etc/millrace/millrace.yaml
  millrace reload --path /var/lib/millrace`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, mistakes := at.look()
			if dir == "" {
				return &exitError{exitFailed, mistakes}
			}
			named := ""
			if at.path == "" {
				named = at.file
			}
			change, err := askReload(cmd.Context(), dir, named)
			switch {
			case errors.Is(err, web.ErrNoGateway):
				if named != "" {
					err = fmt.Errorf("%w If buffer.path is what was changed, that needs a restart; until then the gateway is at its old path: ask with --path, which says what a restart leaves behind there", err)
				}
				return &exitError{exitFailed, errors.Join(err, mistakes)} // perhaps the store is another one
			case err != nil:
				return &exitError{exitFailed, errors.Join(err, errors.New("nothing was changed: the config loaded before runs on"))}
			}
			return printChange(cmd.OutOrStdout(), change)
		},
	}
	at.register(cmd)
	return cmd
}

// askReload asks the gateway on a store. named is the config that the caller means, "" for whichever it runs from.
func askReload(ctx context.Context, dir, named string) (*web.Change, error) {
	c, err := web.Dial(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("reload config: %w", err)
	}
	defer c.Close()
	s, err := c.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("reload config: %w", err)
	}
	if runs := s.Config.File; named != "" && runs != "" && !sameFile(named, runs) {
		return nil, fmt.Errorf("reload config: the gateway runs from %q, not from %q; name that one, or restart it with this one", runs, named)
	}
	return c.Reload(ctx)
}

// sameFile reports whether two paths lead to one file; one that cannot be looked at may.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err != nil || err2 != nil || os.SameFile(x, y)
}

// printChange says what a reload did. The file is the gateway's own, which need not be the one of --config.
func printChange(w io.Writer, c *web.Change) error {
	_, err := fmt.Fprintf(w, "%s is in force, config %s\n%s\n", c.File, c.Hash, strings.ReplaceAll(c.String(), "; ", "\n"))
	return err
}
