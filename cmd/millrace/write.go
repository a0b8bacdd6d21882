package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"millrace/gateway/web"
)

func newWrite() *cobra.Command {
	var file, path string
	cmd := &cobra.Command{
		Use:   "write DEVICE/TAG VALUE",
		Short: "Write a value to equipment through the running gateway, if its config allows it",
		Long: `Ask the running gateway to write a value. It does so only for tags that the config lists under writes:, within their range and
rate, and answers when the device has confirmed. The value is as people see it, with the tag's scale.`,
		Example: "  millrace write press-1/speed 42 --config millrace.yaml",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := path, error(nil)
			if dir == "" {
				if dir, err = storePath(file); dir == "" {
					return &exitError{exitFailed, err}
				}
			}
			done, err := write(cmd.Context(), dir, args[0], args[1])
			if err != nil {
				return &exitError{exitFailed, err}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s/%s = %s, confirmed by the device after %.3f s\n", done.Device, done.Tag, done.Value, done.Seconds)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "millrace.yaml", "config file; its buffer.path is where the gateway is asked")
	cmd.Flags().StringVar(&path, "path", "", "directory of the gateway's store, instead of a config")
	return cmd
}

func write(ctx context.Context, dir, name, value string) (*web.Written, error) {
	device, tag, ok := strings.Cut(name, "/")
	if !ok {
		return nil, fmt.Errorf("write to %q: name the tag as DEVICE/TAG", name)
	}
	c, err := web.Dial(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("write: %w", err)
	}
	defer c.Close()
	return c.Write(ctx, device, tag, value)
}
