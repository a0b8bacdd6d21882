package main

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"millrace/configs"
	"millrace/gateway/config"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "See what a config can say"}
	cmd.AddCommand(&cobra.Command{
		Use:   "reference",
		Short: "Print every key with its default, its bounds and a comment",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), configs.Reference)
			return err
		},
	})
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
