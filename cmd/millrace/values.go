package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/gateway/web"
)

// valuesFlags say which values to show, and how.
type valuesFlags struct {
	at         gatewayFlags
	format     string
	watch, bad bool
}

func newValues() *cobra.Command {
	var f valuesFlags
	cmd := &cobra.Command{
		Use:   "values [DEVICE[/TAG]]",
		Short: "Show the last reading of each tag of the running gateway",
		Long: `Show what the running gateway reads: the last value of each tag, how old it is, and why it is bad if it is. It asks the gateway
through the socket in the store's directory. With --watch it goes on showing each reading as it comes, each row with the time
of its poll (UTC) instead of its age, until it is interrupted or the gateway stops (exit 1). The table cuts a value after 40
characters; json and csv have all of it.`,
		Example: `  millrace values --config millrace.yaml
  millrace values press-1/temperature --watch
  millrace values --bad -o csv`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := newValuePrinter(io.Discard, f.format, f.watch); err != nil {
				return err
			}
			device, tag, _ := strings.Cut(strings.Join(args, ""), "/")
			ctx, stop := interruptible(cmd)
			defer stop()
			err := f.show(ctx, cmd.OutOrStdout(), device, tag)
			if err != nil && ctx.Err() == nil {
				return &exitError{exitFailed, err}
			}
			return nil
		},
	}
	f.at.register(cmd)
	cmd.Flags().BoolVar(&f.watch, "watch", false, "go on showing each reading as it comes")
	cmd.Flags().BoolVar(&f.bad, "bad", false, "only readings that are not good")
	cmd.Flags().StringVarP(&f.format, "output", "o", "table", "table, json (one object a line) or csv")
	return cmd
}

// show asks the gateway and prints what it says.
func (f *valuesFlags) show(ctx context.Context, out io.Writer, device, tag string) error {
	p, err := newValuePrinter(out, f.format, f.watch)
	if err != nil {
		return err
	}
	dir, err := f.at.dir()
	if err != nil {
		return err
	}
	c, err := web.Dial(ctx, dir)
	if err != nil {
		return fmt.Errorf("show values: %w", err)
	}
	defer c.Close()
	list, err := c.Values(ctx, device, tag, f.bad)
	if err != nil && device != "" {
		err = tellUnknown(ctx, c, device, tag, err)
	}
	if err != nil {
		return fmt.Errorf("show values: %w", err)
	}
	if len(list) == 0 && !f.bad {
		return errors.New("show values: the gateway has none: it has no devices, or is at a reload; try again")
	}
	if err := f.tellStates(ctx, c, device); err != nil {
		return err
	}
	for i := range list {
		p.print(&list[i])
	}
	if err := p.flush(); err != nil || !f.watch {
		return err
	}
	return c.Watch(ctx, device, tag, f.bad, func(v *web.Value) error {
		p.print(v)
		return p.flush()
	})
}

// tellStates says what is not ok of the devices that are shown, beside the values so that a program can read those.
func (f *valuesFlags) tellStates(ctx context.Context, c *web.Client, device string) error {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	for i := range s.States {
		if st := &s.States[i]; st.Kind != "device" || device == "" || st.Name == device {
			fmt.Fprintln(os.Stderr, st)
		}
	}
	for i := range s.Devices {
		d := &s.Devices[i]
		for _, note := range d.Notes {
			if device == "" || d.Name == device {
				fmt.Fprintf(os.Stderr, "device %q: note: %s\n", d.Name, note)
			}
		}
		if d.Name == device {
			tellDevice(os.Stderr, d)
		}
	}
	return nil
}

// tellDevice says what of a device stands in no reading of it.
func tellDevice(w io.Writer, d *web.Device) {
	if d.Path != "" {
		fmt.Fprintf(w, "device %q: path in use: %s, spare: %s\n", d.Name, d.Path, strings.Join(d.SparePaths, ", "))
	}
	if len(d.Learned) > 0 {
		fmt.Fprintf(w, "device %q: learned %s; `millrace learned` shows the lines for the config\n", d.Name, strings.Join(d.Learned, ", "))
	}
}

// valuePrinter prints values in one of the formats.
type valuePrinter struct {
	print func(*web.Value)
	flush func() error
}

func newValuePrinter(out io.Writer, format string, watch bool) (*valuePrinter, error) {
	switch format {
	case "table":
		return newTablePrinter(out, watch), nil
	case "json":
		enc := json.NewEncoder(out)
		var failed error
		return &valuePrinter{func(v *web.Value) { failed = errors.Join(failed, enc.Encode(v)) }, func() error { return failed }}, nil
	case "csv":
		w := csv.NewWriter(out)
		_ = w.Write([]string{"device", "group", "tag", "value", "unit", "quality", "reason", "time", "source_time", "lost", "lost_at"})
		return &valuePrinter{func(v *web.Value) {
			_ = w.Write([]string{v.Device, v.Group, v.Tag, shownText(v.Value), v.Unit, v.Quality, v.Reason, milliText(v.At), milliText(v.Source), fmt.Sprint(v.Lost), milliText(v.LostAt)})
		}, func() error { w.Flush(); return w.Error() }}, nil
	}
	return nil, fmt.Errorf("output %q is unknown; use table, json or csv", format)
}

// newTablePrinter prints a table. Of one that goes on, the age of a row would soon be wrong; the time of its poll stays right.
func newTablePrinter(out io.Writer, watch bool) *valuePrinter {
	t := &table{out: out}
	if watch {
		t.add("TIME UTC", "DEVICE", "GROUP", "TAG", "VALUE", "UNIT", "QUALITY", "REASON")
		return &valuePrinter{func(v *web.Value) {
			t.add(clockText(v.At), v.Device, v.Group, v.Tag, cut(shownText(v.Value), widest), v.Unit, qualityText(v), reasonText(v))
		}, t.flush}
	}
	t.add("DEVICE", "GROUP", "TAG", "VALUE", "UNIT", "QUALITY", "AGE", "REASON")
	return &valuePrinter{func(v *web.Value) {
		t.add(v.Device, v.Group, v.Tag, cut(shownText(v.Value), widest), v.Unit, qualityText(v), ageText(v), reasonText(v))
	}, t.flush}
}

func shownText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func qualityText(v *web.Value) string {
	if v.Quality == "" {
		return "not read yet"
	}
	return v.Quality
}

// reasonText says why a reading is bad, and how many others never came lately.
func reasonText(v *web.Value) string {
	if v.Lost == 0 {
		return v.Reason
	}
	last := ""
	if v.Lost > 1 {
		last = "the last "
	}
	lost := fmt.Sprintf("%s lost between two pushes, %sat %s", web.Count(v.Lost, "reading"), last, time.UnixMilli(v.LostAt).UTC().Format("15:04:05Z"))
	if v.Reason == "" {
		return lost
	}
	return v.Reason + "; " + lost
}

func ageText(v *web.Value) string {
	if v.At == 0 {
		return ""
	}
	return web.Span(time.Duration(v.Age * float64(time.Second)))
}

// milliText writes a time in milliseconds since 1970, in UTC; "" for 0.
func milliText(ms int64) string {
	if ms == 0 {
		return ""
	}
	return timeText(ms * 1000)
}

// clockText is the time of day of a time in milliseconds since 1970, in UTC; "" for 0.
func clockText(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("15:04:05.000")
}
