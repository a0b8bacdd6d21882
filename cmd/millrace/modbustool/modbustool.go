// Package modbustool is `millrace modbus`: what an integrator does to a Modbus device by hand, before there is a config for
// it. It promises to be gentle (one request at a time, pauses, bounds), to write nothing without --yes, and to go through the
// running gateway on a line that the gateway owns, never beside it. cmd/millrace puts it into the command tree.
package modbustool

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"millrace/drivers"
)

// Host is what the commands need of the program around them.
type Host struct {
	Protocols func() []drivers.Protocol
	StorePath func(config string) (string, error) // the store of a config, with its mistakes; "" = it has none, or does not exist
	Failed    func(error) error                   // makes the error of a command that ran and failed, as against wrong usage
}

// New returns the command `millrace modbus`.
func New(h Host) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "modbus",
		Short: "Read, scan, identify, write, simulate and trace Modbus devices by hand",
		Long: `Tools for a Modbus device that stands before you. Urls are those of a config: tcp://192.168.1.10, rtu:///dev/ttyUSB0?baud=9600, …
Where the gateway of --config runs and owns the same line, they go through it, between two polls.`,
	}
	cmd.AddCommand(newRead(h), newScan(h), newIdentify(h), newWrite(h), newSimulate(h), newTrace(h))
	return cmd
}

// run gives f a context that ends with Ctrl-C, and marks its error.
func (h Host) run(cmd *cobra.Command, f func(ctx context.Context) error) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := f(ctx); err != nil {
		return h.Failed(err)
	}
	return nil
}
