package main

import (
	"io"

	"github.com/spf13/cobra"

	"millrace/configs"
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
