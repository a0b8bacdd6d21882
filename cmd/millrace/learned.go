package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/gateway/web"
)

// newLearned shows what the running gateway has learned of devices, as lines of a config, or has it forgotten.
func newLearned() *cobra.Command {
	var at gatewayFlags
	var reset bool
	cmd := &cobra.Command{
		Use:   "learned [DEVICE]",
		Short: "Show what was learned of devices as config lines, or have it forgotten",
		Long: `Show what the running gateway has learned of how a device wants to be asked, as the lines that make it permanent: put them at
the device in the config. What is learned is kept over a restart all the same, and is forgotten when the device gets another
driver, url or unit. With --reset it is forgotten now and learned anew, and tags of its rules whose nodes are gone are dropped;
what was forgotten, and how many tags, is printed, and is in the log.`,
		Example: `  millrace learned
  millrace learned press-1
  millrace learned press-1 --reset     # another device was put in its place`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			device := strings.Join(args, "")
			if reset && device == "" {
				return fmt.Errorf("--reset needs the device whose lines are to be forgotten")
			}
			dir, err := at.dir()
			if err != nil {
				return &exitError{exitFailed, err}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			if err := tellLearned(ctx, cmd.OutOrStdout(), dir, device, reset); err != nil {
				return &exitError{exitFailed, err}
			}
			return nil
		},
	}
	at.register(cmd)
	cmd.Flags().BoolVar(&reset, "reset", false, "have it forgotten")
	return cmd
}

func tellLearned(ctx context.Context, out io.Writer, dir, device string, reset bool) error {
	c, err := web.Dial(ctx, dir)
	if err != nil {
		return fmt.Errorf("show what was learned: %w", err)
	}
	defer c.Close()
	if reset {
		was, err := c.ResetLearned(ctx, device, whoAsks())
		if err != nil {
			return err
		}
		printLearned(out, device, "forgotten, and learned anew:", was)
		return nil
	}
	s, err := c.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("show what was learned: %w", err)
	}
	known, told := false, false
	for i := range s.Devices {
		d := &s.Devices[i]
		known = known || d.Name == device
		if d.Name == device || device == "" && len(d.Learned) > 0 {
			told = true
			printLearned(out, d.Name, "learned; at this device in the config it is permanent:", d.Learned)
		}
	}
	switch {
	case device != "" && !known:
		return fmt.Errorf("show what was learned: the gateway has no device %q; `millrace values` shows them", device)
	case !told:
		fmt.Fprintln(out, "# nothing was learned of any device")
	}
	return nil
}

// printLearned prints lines that can stand in a config as they are, what is said of them as a comment.
func printLearned(out io.Writer, device, what string, lines []string) {
	if len(lines) == 0 {
		fmt.Fprintf(out, "# device %q: nothing was learned\n", device)
		return
	}
	fmt.Fprintf(out, "# device %q: %s\n%s\n", device, what, strings.Join(lines, "\n"))
}
