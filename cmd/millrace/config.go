package main

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"millrace/gateway/config"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "See what a config can say, and what one says"}
	cmd.AddCommand(&cobra.Command{
		Use:   "reference",
		Short: "Print every key with its default, its bounds and what it means, as a config that loads",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), config.Reference(protocols()))
			return err
		},
	}, &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a config, for editors that complete and check YAML",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema(protocols()))
			return err
		},
	}, newConfigPrint())
	return cmd
}

func newConfigPrint() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print a config as it takes effect: files joined, defaults filled in, secrets hidden",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file, protocols(), config.Options{})
			if err != nil {
				return &exitError{exitFailed, err}
			}
			return cfg.Print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "millrace.yaml", "config file")
	return cmd
}

// storePath returns the store of a config, with its mistakes: a gateway that runs is found all the same. A file
// that does not exist has no store, or the gateway of the default path would be asked instead.
func storePath(file string) (string, error) {
	dir, err := config.StorePath(file, protocols(), config.Options{})
	if _, missing := os.Stat(file); errors.Is(missing, fs.ErrNotExist) {
		return "", err
	}
	return dir, err
}
