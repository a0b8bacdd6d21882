package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// newGrowth measures how cost grows: more tags on the same devices, more devices with the same tags.
func newGrowth() *cobra.Command {
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "growth",
		Short: "Print how cost grows with tags and with devices",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "devices\ttags\treadings/s\tcpu %\tcpu s/million\tRSS MB\tpeak at start MB\tp99 ms\tlost")
			for _, size := range [][2]int{{1, 100}, {1, 1000}, {10, 1000}, {50, 1000}, {100, 1000}, {1, 10}, {10, 10}, {100, 10}, {1000, 10}} {
				r, err := growthRun(cmd.Context(), size[0], size[1], length)
				if err != nil {
					return err
				}
				fmt.Fprintf(t, "%d\t%d\t%.0f\t%.2f\t%.2f\t%.1f\t%.1f\t%.1f\t%d\n", size[0], size[0]*size[1], r.Rate, 100*r.CPUShare,
					r.CPUPerMillion, float64(r.RSS)/1e6, float64(r.StartPeakRSS)/1e6, r.P99, r.Lost)
				_ = t.Flush()
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&length, "for", 15*time.Second, "measured time of each row")
	return cmd
}

func growthRun(ctx context.Context, devices, tags int, length time.Duration) (*result, error) {
	return runScenario(ctx, options{Scenario: "growth", Target: "millrace", Driver: "modbus", Devices: devices, Tags: tags, Interval: time.Second,
		Kind: "uint16", For: length, Warm: 3 * time.Second, Commit: time.Second, MaxSize: "8GiB", Order: "live-first"})
}
