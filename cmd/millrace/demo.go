package main

import (
	"os"

	"github.com/spf13/cobra"

	"millrace/cmd/millrace/demo"
	"millrace/gateway/config"
)

func newDemo() *cobra.Command {
	o := demo.Options{Out: os.Stdout, In: os.Stdin, Version: version}
	lf := logFlags{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See readings go from a simulated plant through the gateway to the cloud",
		Long: `Run a plant of three Modbus devices and an OPC UA machine, the gateway, a broker and a subscriber in the
cloud's place, all in this process and on loopback. On a terminal the subscriber's table is redrawn in place and
keys cut the uplink; elsewhere a line is printed each second. At the end what the plant served is compared
with what arrived: exit 0 when every reading came, in order, else 1. Nothing is left on the disk.`,
		Example: `  millrace demo
  millrace demo --for 20s --outage 8s
  millrace demo --for 20s --outage 8s --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Check(); err != nil {
				return err
			}
			log, _, err := lf.logger(config.Log{})
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd)
			defer stop()
			o.Log, o.Protocols = log, protocols()
			if _, err := demo.Run(ctx, o); err != nil {
				return &exitError{exitFailed, err}
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&o.For, "for", 0, "end after this time, such as 20s (default: at q, or Ctrl-C)")
	cmd.Flags().DurationVar(&o.Outage, "outage", 0, "cut the uplink for this time in the middle")
	cmd.Flags().BoolVar(&o.JSON, "json", false, "print only the account, as one JSON object")
	lf.register(cmd)
	return cmd
}
