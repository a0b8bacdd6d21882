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

	"millrace/gateway/web"
)

// New returns the command `millrace import FORMAT FILE`. It writes a list of devices to standard output, which a
// config can include, and the remarks to standard error as well.
func New() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "import FORMAT FILE",
		Short: "Turn the tags of another gateway into devices of a config",
		Long: "import reads the tags of another gateway and prints them as devices that a config can include.\n" +
			"What it could not translate is named, on standard error and at the top of the output.\n\nFormats: " + strings.Join(Formats(), ", ") + ".\n" +
			"Those of CSV may also be the first sheet of an Excel workbook (.xlsx), as Neuron exports it.",
		Example: "  millrace import kepware-csv press.csv --device press-1 --url tcp://192.168.1.10:502 > devices/press-1.yaml",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readFile(args[1])
			if err != nil {
				return err
			}
			r, err := Import(args[0], data, o)
			if err != nil {
				return err
			}
			report(cmd.ErrOrStderr(), r)
			return r.WriteYAML(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&o.Device, "device", "", "name of the device where the file has none")
	cmd.Flags().StringVar(&o.URL, "url", "", "url of the device where the file has none")
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
	fmt.Fprintf(w, "%s imported; run millrace check before you use the output\n", web.Count(uint64(r.Tags), "tag"))
}

// readFile reads a regular file of at most 32 MiB and one byte, which Import refuses.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("read %q: it is not a file", path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %q: there is no such file; see the name, it is looked for from the folder that the command runs in", path)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxInput+1))
}
