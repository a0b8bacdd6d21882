package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"millrace/gateway/web"
)

func newCall() *cobra.Command {
	var at gatewayFlags
	cmd := &cobra.Command{
		Use:   "call DEVICE/METHOD [ARGUMENTS]",
		Short: "Call a method of equipment through the running gateway, if its config allows it",
		Long: `Ask the running gateway to call a method. It does so only for methods that the config lists under writes:, with numbers in the ranges
that stand there and within the rate, and answers when the device has. What the method gives is printed, a line for each value.
Arguments are of the types that the device says; an array is written as JSON has it: "[1, 2, 3]".`,
		Example: `  millrace call press-1/home --config millrace.yaml
  millrace call press-1/move 12.5 fast`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && !strings.Contains(args[0], "/") {
				return fmt.Errorf("call %q: name the method as DEVICE/METHOD, and its arguments behind it: millrace call press-1/move 12.5", args[0])
			}
			return cobra.MinimumNArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := at.dir()
			if err != nil {
				return &exitError{exitFailed, err}
			}
			for i := range args { // see withNegatives
				args[i] = strings.TrimPrefix(args[i], " ")
			}
			done, err := call(cmd.Context(), dir, args[0], args[1:])
			if err != nil {
				return &exitError{exitFailed, err}
			}
			printCalled(cmd.OutOrStdout(), done)
			return nil
		},
	}
	at.register(cmd)
	return cmd
}

func call(ctx context.Context, dir, name string, arguments []string) (*web.Called, error) {
	device, method, ok := strings.Cut(name, "/")
	if !ok || device == "" || method == "" {
		return nil, fmt.Errorf("call %q: name the method as DEVICE/METHOD", name)
	}
	c, err := web.Dial(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("call: %w", err)
	}
	defer c.Close()
	done, err := c.Call(ctx, device, method, arguments)
	if err != nil {
		return nil, tellUnknownDevice(ctx, c, device, err)
	}
	return done, nil
}

// printCalled prints what a method gave. The texts are a device's.
func printCalled(out io.Writer, done *web.Called) {
	fmt.Fprintf(out, "%s/%s called, confirmed by the device after %.3f s\n", done.Device, done.Method, done.Seconds)
	for i, r := range done.Results {
		name := r.Name
		if name == "" {
			name = fmt.Sprintf("result %d", i+1)
		}
		fmt.Fprintln(out, strings.TrimSuffix(fmt.Sprintf("%s = %s (%s)  %s", safe(name), safe(cut(shownText(r.Value), 200)), safe(r.Type), safe(r.Reason)), "  "))
	}
}
