// Command millrace is the gateway: it polls industrial equipment, keeps every reading through outages of
// the uplink, and publishes to an MQTT broker. This file owns the command tree and the exit codes; each
// subcommand has a file of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"millrace/cmd/millrace/importer"
	"millrace/cmd/millrace/modbustool"
)

// Exit codes, as `millrace help exit-codes` lists them.
const (
	exitOK      = 0
	exitFailed  = 1 // the command ran and the answer is no: a config with mistakes, a reload refused, a stop that lost readings, a damaged store
	exitUsage   = 2 // unknown command or flag
	exitStartup = 3 // run could not start: config, store or port; nothing was changed
	exitHung    = 4 // run was told to stop, and something did not end in time
)

// exitError carries an exit code up to main. An empty message prints nothing: the command has said it all.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

var errSaid = errors.New("") // the command has printed why

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout))
}

func execute(args []string, out io.Writer) int {
	root := newRoot()
	root.SetArgs(withNegatives(root, args))
	root.SetOut(out)
	cmd, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	code := exitUsage
	var e *exitError
	if errors.As(err, &e) {
		code = e.code
	}
	if msg := err.Error(); msg != "" {
		fmt.Fprintf(os.Stderr, "millrace: %s\n", msg)
	}
	if code == exitUsage {
		if cmd.HasParent() {
			fmt.Fprintf(os.Stderr, "Usage: %s\n", cmd.UseLine())
		}
		if cmd.HasParent() && cmd.HasExample() {
			fmt.Fprintf(os.Stderr, "Example:\n%s\n", cmd.Example)
		}
		fmt.Fprintf(os.Stderr, "See '%s --help'.\n", cmd.CommandPath())
	}
	return code
}

// withNegatives puts a space before each negative number among the arguments of a command that writes or calls: pflag would take -5 for a flag.
// Those commands take the space away again.
func withNegatives(root *cobra.Command, args []string) []string {
	if cmd, _, err := root.Find(args); err != nil || cmd.Name() != "write" && cmd.Name() != "call" {
		return args
	}
	args = slices.Clone(args)
	for i, a := range args {
		if _, err := strconv.ParseFloat(a, 64); err == nil && a[0] == '-' {
			args[i] = " " + a
		}
	}
	return args
}

// interruptible returns a context that SIGINT or SIGTERM ends; a second signal ends the process at once.
func interruptible(cmd *cobra.Command) (context.Context, func()) {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "millrace",
		Short: "Industrial telemetry gateway: Modbus and OPC UA to MQTT, nothing lost on the way",
		Long: `millrace polls Modbus and OPC UA equipment, keeps every reading in an embedded store
while the uplink is down, and publishes to an MQTT broker.

Every command that works with a config takes millrace.yaml of the current folder, unless --config (-c) names another file.`,
		Example: `  millrace demo                          see readings arrive, no equipment needed
  millrace check --config millrace.yaml  find every mistake in a config, without a network
  millrace run --config millrace.yaml    run the gateway
  millrace reload --config millrace.yaml put a changed config into force while it runs`,
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Version}}")
	root.AddCommand(newRun(), newCheck(), newReload(), newDemo(), newValues(), newWrite(), newCall(), newLearned(), newAck(), newBuffer(), importer.New(func(err error) error { return &exitError{exitFailed, err} }), importer.NewTemplate(),
		modbustool.New(modbustool.Host{Protocols: protocols, StorePath: storePath, Failed: func(err error) error { return &exitError{exitFailed, err} }}),
		newOPCUA(), newConfig(), newDrivers(), newHealth(), newVersion(), exitCodesTopic())
	for _, cmd := range root.Commands() {
		refuseUnknown(cmd)
	}
	return root
}

// refuseUnknown makes groups of commands refuse a name they do not have: cobra prints help and calls it done.
func refuseUnknown(cmd *cobra.Command) {
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
		}
	}
	for _, sub := range cmd.Commands() {
		refuseUnknown(sub)
	}
}

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `0  done
1  the command ran and the answer is no: a config with mistakes, a reload refused (the old config runs on), a damaged
   store, damage that nobody has acknowledged; of run: its stop lost readings, which the store could not take
2  usage: unknown command or flag
3  run could not start: config, store or port; nothing was changed (a disk that is full or read-only is waited for)
4  run was told to stop, and something did not end within the grace time and 5 s; the log says what`,
	}
}
