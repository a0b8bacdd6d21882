package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers"
	"millrace/drivers/opcua"
	"millrace/drivers/telemetry"
)

// pushWatch shows what a server pushes.
type pushWatch struct {
	lasts  time.Duration
	format string
	shown  int
	also   string // what is to be said when nothing is shown
}

func (w *pushWatch) register(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&w.lasts, "for", 0, "how long; 0 = until it is interrupted")
	cmd.Flags().StringVarP(&w.format, "output", "o", "table", "table or json (one object a line)")
}

// run calls show until it is interrupted or --for is over. That none came until then, no value or no event, is a failure.
func (w *pushWatch) run(cmd *cobra.Command, what string, show func(ctx context.Context) error) error {
	if err := knownFormat(w.format); err != nil {
		return err
	}
	if w.lasts < 0 {
		return fmt.Errorf("--for %v is no time; leave it out to watch until it is interrupted", w.lasts)
	}
	ctx, stop := interruptible(cmd)
	defer stop()
	if w.lasts > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, w.lasts)
		defer cancel()
	}
	err := show(ctx)
	switch {
	case ctx.Err() == nil:
		return failed(err)
	case w.shown == 0 && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return failed(fmt.Errorf("no %s came within %v%s; watch longer", what, w.lasts, w.also))
	}
	return nil
}

// follow subscribes what the client has been given and shows each push. what is values or events.
func (w *pushWatch) follow(ctx context.Context, c *opcua.Client, what string, show func([]telemetry.Reading) error) error {
	pushed, err := c.Subscribe(ctx, drivers.Ref{})
	if err != nil {
		return err
	}
	if !pushed {
		return fmt.Errorf("the server pushes no %s; millrace opcua read asks for values one by one", what)
	}
	for pushes := c.Pushed(); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p, open := <-pushes:
			switch {
			case p.Err != nil:
				return p.Err
			case !open:
				return errors.New("the connection is lost")
			case p.Note != "":
				fmt.Fprintln(os.Stderr, safe(p.Note))
			}
			if p.Lost > 0 {
				fmt.Fprintf(os.Stderr, "%d %s are missing before the next ones\n", p.Lost, what)
			}
			if err := show(p.Readings); err != nil {
				return err
			}
		}
	}
}
