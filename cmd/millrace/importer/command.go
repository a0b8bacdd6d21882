package importer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers/files"
	"millrace/gateway/web"
)

// New returns the command `millrace import FORMAT FILE`. It writes a list of devices to standard output, which a
// config can include, and the remarks to standard error as well. failed makes the error of a file that cannot be
// imported, as against wrong usage.
func New(failed func(error) error) *cobra.Command {
	var o Options
	var unit uint8
	cmd := &cobra.Command{
		Use:   "import FORMAT FILE",
		Short: "Turn the tags of another gateway into devices of a config",
		Long: "import reads the tags of another gateway and prints them as devices that a config can include.\n" +
			"What it could not translate is named, on standard error and at the top of the output.\n\nFormats: " + strings.Join(Formats(), ", ") + ".\n" +
			"Those of CSV may also be the first sheet of an Excel workbook (.xlsx), as Neuron exports it.",
		Example: "  millrace import kepware-csv press.csv --device press-1 --url tcp://192.168.1.10:502 --unit 1 > devices/press-1.yaml",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("import takes a format and a file, and not %s; the formats are %s", web.Count(uint64(len(args)), "argument"), strings.Join(Formats(), ", "))
			}
			if formats[args[0]] == nil {
				return fmt.Errorf("there is no format %q; use one of %s", args[0], strings.Join(Formats(), ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("unit") {
				n := int(unit)
				o.Unit = &n
			}
			if !cmd.Flags().Changed("interval") {
				o.Interval = 0 // it is said that nobody said it
			}
			data, err := readFile(args[1])
			if err != nil {
				return failed(err)
			}
			r, err := Import(args[0], data, o)
			if err != nil {
				return failed(fmt.Errorf("import %s %q: %w", args[0], args[1], err))
			}
			report(cmd.ErrOrStderr(), r)
			if r.Tags == 0 {
				return failed(fmt.Errorf("import %s %q: nothing of it could be translated; what stands above says why", args[0], args[1]))
			}
			return r.WriteYAML(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&o.Device, "device", "", "name of the device where the file has none")
	cmd.Flags().StringVar(&o.URL, "url", "", "url of the device where the file has none")
	cmd.Flags().Uint8Var(&unit, "unit", 1, "unit id of the device where the file has none, 0 to 255")
	cmd.Flags().DurationVar(&o.Interval, "interval", time.Second, "interval of the groups where the file has none")
	return cmd
}

func report(w io.Writer, r *Result) {
	for _, p := range r.Problems {
		fmt.Fprintln(w, oneLine(p.String(), maxRemark))
	}
	if r.Unnamed > 0 {
		fmt.Fprintf(w, "and %d more remarks\n", r.Unnamed)
	}
	if r.Tags == 0 {
		return
	}
	fmt.Fprintf(w, "%s imported; run millrace check before you use the output\n", web.Count(uint64(r.Tags), "tag"))
}

// readFile reads a regular file of at most 32 MiB and one byte, which Import refuses.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read %q: there is no such file; see the name, it is looked for from the folder that the command runs in", path)
	case err == nil && info.IsDir():
		return nil, fmt.Errorf("read %q: it is a folder; name a file in it", path)
	case err == nil && !info.Mode().IsRegular():
		return nil, fmt.Errorf("read %q: it is a device or a pipe and no file; save the text in a file first", path)
	case err != nil:
		return nil, unreadable(path, err)
	}
	data, err := files.Read(path, maxInput)
	switch {
	case errors.Is(err, files.ErrTooLarge):
		return nil, errInput
	case err != nil:
		return nil, unreadable(path, err)
	}
	return data, nil
}

// unreadable says which file it was once, and what the system says.
func unreadable(path string, err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		err = of.Err
	}
	return fmt.Errorf("read %q: %w; see whether this user may read it", path, err)
}
