package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"millrace/gateway/config"
	"millrace/gateway/web"
)

func newWrite() *cobra.Command {
	var at gatewayFlags
	cmd := &cobra.Command{
		Use:   "write DEVICE/TAG VALUE",
		Short: "Write a value to equipment through the running gateway, if its config allows it",
		Long: `Ask the running gateway to write a value. It does so only for tags that the config lists under writes:, within their range and
rate, and answers when the device has confirmed. The value is as people see it, with the tag's scale.`,
		Example: `  millrace write press-1/speed 42 --config millrace.yaml
  millrace write press-1/trim -5`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && !strings.Contains(args[0], "/") {
				return fmt.Errorf("write to %q: name the tag as DEVICE/TAG, and the value behind it: millrace write press-1/speed 42", args[0])
			}
			return cobra.ExactArgs(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := at.dir()
			if err != nil {
				return &exitError{exitFailed, err}
			}
			done, err := write(cmd.Context(), dir, args[0], strings.TrimPrefix(args[1], " "))
			if err != nil {
				return &exitError{exitFailed, err}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s/%s = %s, confirmed by the device after %.3f s\n", done.Device, done.Tag, done.Value, done.Seconds)
			return nil
		},
	}
	at.register(cmd)
	return cmd
}

// gatewayFlags say which running gateway is asked.
type gatewayFlags struct{ file, path string }

func (f *gatewayFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.file, "config", "c", "millrace.yaml", "config file; its buffer.path is where the gateway is asked")
	cmd.Flags().StringVar(&f.path, "path", "", "directory of the gateway's store, instead of a config")
}

// dir returns the directory of its store. A config with mistakes may still say it.
func (f *gatewayFlags) dir() (string, error) {
	dir, mistakes := f.look()
	if dir == "" {
		return "", mistakes
	}
	return dir, nil
}

// look is dir with the mistakes of the config, whether it says the directory or not ("").
func (f *gatewayFlags) look() (dir string, mistakes error) {
	if f.path != "" {
		return f.path, nil
	}
	return storePath(f.file)
}

func write(ctx context.Context, dir, name, value string) (*web.Written, error) {
	device, tag, ok := strings.Cut(name, "/")
	if !ok || device == "" {
		return nil, fmt.Errorf("write to %q: name the tag as DEVICE/TAG", name)
	}
	c, err := web.Dial(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("write: %w", err)
	}
	defer c.Close()
	done, err := c.Write(ctx, device, tag, value)
	if err != nil {
		return nil, tellUnknown(ctx, c, device, tag, err)
	}
	return done, nil
}

// tellUnknown returns refused, or where the gateway refused because it has no such device or tag, an error that says so with the
// name that was probably meant.
func tellUnknown(ctx context.Context, c *web.Client, device, tag string, refused error) error {
	if err := tellUnknownDevice(ctx, c, device, refused); err != refused || !judged(refused) {
		return err
	}
	list, err := c.Values(ctx, device, "", false)
	if err != nil {
		return refused
	}
	var names []string
	for i := range list {
		if list[i].Tag != "" {
			names = append(names, list[i].Tag)
		}
	}
	if len(names) == 0 || slices.Contains(names, tag) {
		return refused
	}
	return fmt.Errorf("device %q has no tag %q; %s", device, tag, meant(tag, names, "millrace values "+device))
}

// judged reports whether the gateway itself has refused, and not for being busy.
func judged(refused error) bool {
	var said *web.Refusal
	return errors.As(refused, &said) && said.Code != http.StatusServiceUnavailable
}

// tellUnknownDevice is tellUnknown for the device alone.
func tellUnknownDevice(ctx context.Context, c *web.Client, device string, refused error) error {
	if !judged(refused) {
		return refused
	}
	s, err := c.Snapshot(ctx)
	if err != nil {
		return refused
	}
	names := make([]string, len(s.Devices))
	for i := range s.Devices {
		names[i] = s.Devices[i].Name
	}
	if !slices.Contains(names, device) {
		return fmt.Errorf("the gateway has no device %q; %s", device, meant(device, names, "millrace values"))
	}
	return refused
}

// meant is what to do about an unknown name.
func meant(word string, names []string, command string) string {
	if near := config.Nearest(word, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return fmt.Sprintf("`%s` shows all", command)
}
