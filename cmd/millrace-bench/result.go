package main

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// result is what one run measured. Bytes are bytes, latencies milliseconds, everything else seconds.
type result struct {
	Settings      options   `json:"settings"`
	Seconds       float64   `json:"seconds"`
	Served        uint64    `json:"served"` // readings, whole run
	Delivered     uint64    `json:"delivered"`
	Rate          float64   `json:"readings_per_second"`
	CPU           float64   `json:"cpu_seconds"`
	CPUPerMillion float64   `json:"cpu_seconds_per_million"`
	CPUShare      float64   `json:"cpu_share"`
	RSS           int64     `json:"rss"`
	PeakRSS       int64     `json:"peak_rss"`
	StartPeakRSS  int64     `json:"start_peak_rss"`
	ReloadRSS     []int64   `json:"reload_rss,omitempty"` // after each reload
	P50           float64   `json:"latency_p50_ms"`
	P99           float64   `json:"latency_p99_ms"`
	Max           float64   `json:"latency_max_ms"`
	Jitter        float64   `json:"start_jitter_p99_ms"`
	Lost          uint64    `json:"lost"`
	Late          uint64    `json:"missed_polls"`
	Duplicates    uint64    `json:"duplicates"`
	Inversions    uint64    `json:"inversions"`
	Torn          uint64    `json:"torn"`
	Bad           uint64    `json:"bad"`
	GapMessages   uint64    `json:"gap_messages"`
	GapReadings   uint64    `json:"gap_readings"` // that they say are lost
	Written       int64     `json:"bytes_written"`
	PeakDisk      int64     `json:"peak_disk"`
	Wakeups       float64   `json:"wakeups_per_second"`
	FirstMessage  float64   `json:"first_message"`
	Reconnect     float64   `json:"reconnect_seconds,omitempty"`
	Drain         float64   `json:"drain_seconds,omitempty"`
	DrainRate     float64   `json:"drain_readings_per_second,omitempty"`
	Marks         []float64 `json:"marks,omitempty"`
	Points        []point   `json:"points,omitempty"`
}

// point is one second of the plot.
type point struct {
	At        float64 `json:"at"`
	Delivered uint64  `json:"delivered"`
	RSS       int64   `json:"rss"`
	Disk      int64   `json:"disk"`
	P99       float64 `json:"latency_p99_ms"` // of the live readings since the point before; 0 = there were none
}

// balance compares what the simulators served with what arrived. The last scan of a device may have been cut by the
// stop: it does not count. With kills, scans younger than the commit interval may be lost by contract; they are counted all the same.
func (r *result) balance(a *account, served simReport, o options) {
	a.mu.Lock()
	defer a.mu.Unlock()
	words := uint64(1)
	if o.Kind == "float32" && o.Driver == "modbus" {
		words = 2
	}
	r.Served = served.Registers / words
	var missing, scans uint64
	for i, n := range served.Scans {
		scans += n
		d := a.devices[fmt.Sprintf("d%d", i)]
		if d == nil {
			missing += n
			continue
		}
		if a.pushed {
			d.begin()
		}
		missing += d.scans.missingUpTo(n)
	}
	r.Lost = missing * uint64(o.Tags)
	r.Duplicates, r.Inversions, r.Torn, r.Bad = a.duplicates, a.inversions, a.torn, a.bad
	r.GapMessages, r.GapReadings = a.gapMessages, a.gapReadings
	if o.Kills == 0 && o.Outage == 0 && r.Seconds > 0 {
		want := uint64(r.Seconds/o.Interval.Seconds()) * uint64(o.Devices-o.Dead)
		if got := r.Delivered / uint64(o.Tags); got < want {
			r.Late = want - got
		}
	}
}

// verdict is an error when a promise was broken.
func (r *result) verdict() error {
	if r.Settings.Target == "floor" {
		return nil // it promises nothing
	}
	allowed := uint64(0)
	if r.Settings.Kills > 0 {
		perKill := uint64(r.Settings.Commit/r.Settings.Interval) + 2
		allowed = uint64(r.Settings.Kills) * perKill * uint64(r.Settings.Devices*r.Settings.Tags)
	}
	if r.Lost > allowed || r.Inversions > 0 || r.Torn > 0 {
		return fmt.Errorf("lost %d readings (allowed %d), %d inversions, %d torn messages", r.Lost, allowed, r.Inversions, r.Torn)
	}
	if n := r.afterReload(); n > r.RSS*maxAfterReload/100 {
		return fmt.Errorf("memory after a reload is %d %% of what it was before; the bar is %d %%", n*100/r.RSS, maxAfterReload)
	}
	return nil
}

// maxAfterReload is the most memory after a reload, in percent of that before all of them.
const maxAfterReload = 125

// afterReload is the most memory after any of the reloads, 0 without one.
func (r *result) afterReload() (most int64) {
	for _, n := range r.ReloadRSS {
		most = max(most, n)
	}
	return most
}

func (r *result) rows() [][2]string {
	mib := func(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
	rows := [][2]string{
		{"delivered", fmt.Sprintf("%d readings in %.1f s", r.Delivered, r.Seconds)},
		{"rate", fmt.Sprintf("%.0f readings/s", r.Rate)},
		{"memory", fmt.Sprintf("%s now, %s peak, %s at start", mib(r.RSS), mib(r.PeakRSS), mib(r.StartPeakRSS))},
		{"latency", fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, max %.2f ms", r.P50, r.P99, r.Max)},
		{"start jitter", fmt.Sprintf("p99 %.2f ms", r.Jitter)},
		{"account", fmt.Sprintf("served %d, lost %d, duplicates %d, inversions %d, torn %d, bad %d, missed polls %d", r.Served, r.Lost, r.Duplicates, r.Inversions, r.Torn, r.Bad, r.Late)},
		{"gap messages", fmt.Sprintf("%d, of %d readings", r.GapMessages, r.GapReadings)},
		{"disk", fmt.Sprintf("%s written, %s at most", mib(r.Written), mib(r.PeakDisk))},
		{"first message", fmt.Sprintf("%.3f s after the start", r.FirstMessage)},
	}
	if r.CPU > 0 {
		rows = append(rows,
			[2]string{"cpu", fmt.Sprintf("%.3f s per million readings (%.2f %% of a core)", r.CPUPerMillion, 100*r.CPUShare)},
			[2]string{"wake-ups", fmt.Sprintf("%.1f/s", r.Wakeups)})
	}
	if r.Drain > 0 {
		rows = append(rows, [2]string{"drain", fmt.Sprintf("%.2f s, %.0f readings/s; first message %.2f s after the line was mended", r.Drain, r.DrainRate, r.Reconnect)})
	}
	if most := r.afterReload(); most > 0 {
		row := fmt.Sprintf("%.2f of what it was at most:", float64(most)/float64(r.RSS))
		for _, n := range r.ReloadRSS {
			row += " " + mib(n)
		}
		rows = append(rows, [2]string{"after reloads", row})
	}
	return rows
}

func (r *result) print(w io.Writer) {
	o := r.Settings
	driver := o.Driver
	if driver == "opcua" {
		driver += " " + o.Mode + ", security " + o.Security
	}
	fmt.Fprintf(w, "%s: %s, %s, %d devices × %d tags × %v, %s\n", o.Scenario, o.Target, driver, o.Devices, o.Tags, o.Interval, o.Kind)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range r.rows() {
		fmt.Fprintf(t, "  %s\t%s\n", row[0], row[1])
	}
	_ = t.Flush()
}

func newCompare() *cobra.Command {
	return &cobra.Command{
		Use:   "compare A.json B.json",
		Short: "Compare two results as ratios B/A",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var rs [2]map[string]any
			for i, path := range args {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				if err := json.Unmarshal(b, &rs[i]); err != nil {
					return fmt.Errorf("read result %q: %w", path, err)
				}
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(t, "figure\tA\tB\tB/A\n")
			for _, k := range []string{"readings_per_second", "cpu_seconds_per_million", "rss", "peak_rss", "start_peak_rss", "latency_p50_ms", "latency_p99_ms",
				"lost", "duplicates", "inversions", "bytes_written", "wakeups_per_second", "first_message", "drain_readings_per_second"} {
				a, _ := rs[0][k].(float64)
				b, _ := rs[1][k].(float64)
				ratio := "-"
				if a != 0 {
					ratio = fmt.Sprintf("%.2f", b/a)
				}
				fmt.Fprintf(t, "%s\t%.4g\t%.4g\t%s\n", k, a, b, ratio)
			}
			return t.Flush()
		},
	}
}

func dirSize(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // files come and go while we look
		}
		if i, err := e.Info(); err == nil && i.Mode().IsRegular() {
			n += i.Size()
		}
		return nil
	})
	return n
}
