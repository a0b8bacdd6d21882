package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"millrace/gateway/web"
)

// newAck tells the running gateway that a person has seen what was lost.
func newAck() *cobra.Command {
	var at gatewayFlags
	cmd := &cobra.Command{
		Use:   "ack",
		Short: "Say that you have seen what was lost, or has changed",
		Long: `Say that you have seen what was lost, and which devices have changed. Until then the running gateway goes on saying it first: on its page, in
/readyz, in /metrics and in its log, after a restart too. The counts of the ledger stay; a device that has changed is taken as it is now. The log notes
who has seen what, and when. While the disk takes nothing it is acknowledged in memory only, and this says so: exit 0 all the same.`,
		Example: `  millrace ack --config millrace.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			dir, err := at.dir()
			if err != nil {
				return &exitError{exitFailed, err}
			}
			c, err := web.Dial(ctx, dir)
			if err != nil {
				return &exitError{exitFailed, fmt.Errorf("acknowledge losses: %w", err)}
			}
			defer c.Close()
			seen, err := c.Ack(ctx, whoAsks())
			if err != nil {
				return &exitError{exitFailed, fmt.Errorf("acknowledge losses: %w", err)}
			}
			for _, c := range seen.Changes {
				fmt.Fprintf(cmd.OutOrStdout(), "acknowledged: device %q has changed: %s\n", c.Device, c.What)
			}
			for i := range seen.Losses {
				l := &seen.Losses[i]
				if l.Destination == "" {
					fmt.Fprintf(cmd.OutOrStdout(), "acknowledged: readings that nobody can count were lost by %s\n", l.Causes)
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "acknowledged: destination %q lost %s readings (%s), noticed from %s to %s; their gap messages say of when\n", l.Destination,
					web.Thousands(l.Readings), l.Causes, l.From.UTC().Format(time.RFC3339), l.To.UTC().Format(time.RFC3339))
			}
			if !seen.Remade.IsZero() {
				fmt.Fprintf(cmd.OutOrStdout(), "acknowledged: the store's directory was taken away while in use, at %s\n", seen.Remade.UTC().Format(time.RFC3339))
			}
			if len(seen.Losses)+len(seen.Changes) == 0 && seen.Remade.IsZero() {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing was lost or has changed that is not acknowledged")
			}
			if seen.NotKept != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "acknowledged in memory only: the disk did not take it, which is tried again; a kill or a power cut before that may make it stand again: %s\n", seen.NotKept)
			}
			return nil
		},
	}
	at.register(cmd)
	return cmd
}

// whoAsks is the user, for the log: the one before sudo, where there is one.
func whoAsks() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return personName(name)
	}
	if u, err := user.Current(); err == nil {
		return personName(u.Username)
	}
	return fmt.Sprint("uid ", os.Getuid())
}

// personName is a name as the gateway takes it: it may come from the environment.
func personName(name string) string {
	text := []rune(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, "?")))
	return string(text[:min(len(text), web.MaxBy)])
}
