package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// newGrowth measures how cost grows: more tags, more devices with the same tags, a larger backlog.
func newGrowth() *cobra.Command {
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "growth",
		Short: "Print how cost grows with tags, with devices and with the backlog",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := growthOfLoad(cmd.Context(), cmd.OutOrStdout(), length); err != nil {
				return err
			}
			return growthOfBacklog(cmd.Context(), cmd.OutOrStdout(), length)
		},
	}
	cmd.Flags().DurationVar(&length, "for", 15*time.Second, "measured time of each row")
	return cmd
}

func growthOfLoad(ctx context.Context, w io.Writer, length time.Duration) error {
	const row = "%8v %8v %11v %7v %14v %7v %17v %7v %5v\n"
	fmt.Fprintf(w, row, "devices", "tags", "readings/s", "cpu %", "cpu s/million", "RSS MiB", "peak at start MiB", "p99 ms", "lost")
	for _, size := range [][2]int{{1, 100}, {1, 1000}, {10, 1000}, {50, 1000}, {100, 1000}, {1, 10}, {10, 10}, {100, 10}, {1000, 10}} {
		r, err := runScenario(ctx, options{Scenario: "growth", Target: "millrace", Slack: unitSlack, Driver: "modbus", Security: "none", Devices: size[0], Tags: size[1],
			Interval: time.Second, Kind: "uint16", For: length, Warm: 3 * time.Second, Commit: time.Second, MaxSize: "8GiB", Order: "live-first"})
		if err != nil {
			return err
		}
		fmt.Fprintf(w, row, size[0], size[0]*size[1], int(r.Rate), decimals(100*r.CPUShare, 2), decimals(r.CPUPerMillion, 2),
			mebibytes(r.RSS), mebibytes(r.StartPeakRSS), decimals(r.P99, 1), r.Lost)
	}
	return nil
}

func growthOfBacklog(ctx context.Context, w io.Writer, length time.Duration) error {
	const row = "%11v %18v %7v %14v %7v %8v %7v %17v\n"
	fmt.Fprintln(w, "\n10 devices × 1,000 tags × 100 ms, uplink down")
	fmt.Fprintf(w, row, "backlog GiB", "readings/s polled", "cpu %", "cpu s/million", "RSS MiB", "peak MiB", "open s", "buffer status ms")
	for _, size := range []int64{0, 1 << 30, 4 << 30} {
		r, err := backlogRun(ctx, size, length)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, row, decimals(float64(r.bytes)/(1<<30), 2), int(r.polled), decimals(100*r.cpu, 2), decimals(r.cpu/r.polled*1e6, 2),
			mebibytes(r.rss), mebibytes(r.peak), decimals(r.open.Seconds(), 2), r.status.Milliseconds())
	}
	return nil
}

func decimals(v float64, n int) string { return fmt.Sprintf("%.*f", n, v) }

func mebibytes(n int64) string { return decimals(float64(n)/(1<<20), 1) }
