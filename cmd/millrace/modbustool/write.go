package modbustool

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/telemetry"
	"millrace/gateway/command"
)

func newWrite(h Host) *cobra.Command {
	var f lineFlags
	var yes bool
	tag := telemetry.Tag{Name: "value", Options: map[string]string{}}
	var order, length string
	var function uint8
	cmd := &cobra.Command{
		Use:   "write URL ADDRESS VALUE --yes",
		Short: "Write one value to a device and read it back",
		Long: `Write one value to a coil or to holding registers, and read it back. Without --yes it shows what the device holds now and
writes nothing. On a line that a running gateway owns it refuses: there only the tags that the config lists under writes: can
be written, with millrace write.`,
		Example: `  millrace modbus write tcp://192.168.1.10 holding:100 42 --type uint16 --yes
  millrace modbus write tcp://192.168.1.10 holding:100 -5 --type int16 --yes
  millrace modbus write tcp://192.168.1.10 coil:7 true --yes`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			tag.Address = args[1]
			if order != "" {
				tag.Options["order"] = order
			}
			if length != "" {
				tag.Options["length"] = length
			}
			if function != 0 {
				tag.Options["write_function"] = fmt.Sprint(function)
			}
			if _, err := newDriver(args[0], &f, []telemetry.Tag{tag}); err != nil {
				return err
			}
			return h.run(cmd, func(ctx context.Context) error {
				l, err := f.open(ctx, cmd, h, args[0])
				if err != nil {
					return err
				}
				defer l.close()
				if l.owner != nil {
					return fmt.Errorf("write %s: the gateway that runs on %q owns this line; list the tag under writes: in its config and use `millrace write`, or stop the gateway", args[1], l.dir)
				}
				// cmd/millrace puts a space before a negative number, or pflag would take it for a flag
				return writeValue(ctx, cmd.OutOrStdout(), &f, args[0], tag, strings.TrimPrefix(args[2], " "), yes)
			})
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "write; without it nothing is")
	cmd.Flags().StringVar(&tag.Type, "type", "", "type of the value, as in a config (default uint16, or bool for bits)")
	cmd.Flags().StringVar(&order, "order", "", "byte order: ABCD, CDAB, BADC or DCBA (default ABCD)")
	cmd.Flags().Uint8Var(&function, "function", 0, "function code of the write: 6, 16, or 23, which reads back in the same exchange; of a coil 5 or 15 (default 6 or 5, else 16 or 15)")
	cmd.Flags().StringVar(&length, "length", "", "length of a string in bytes")
	return cmd
}

// writeValue shows what is there, writes, and shows what is there then.
func writeValue(ctx context.Context, w io.Writer, f *lineFlags, url string, tag telemetry.Tag, word string, yes bool) error {
	d, err := newDriver(url, f, []telemetry.Tag{tag})
	if err != nil {
		return err
	}
	value, err := command.Parse(word, d.(drivers.Typed).DataTypes(drivers.Ref{})[0], false)
	if err != nil {
		return err
	}
	if function, _, err := modbus.Locate(tag.Address); err == nil && (function == 2 || function == 4) {
		return fmt.Errorf("write %s: it can only be read", tag.Address)
	}
	if err := d.Connect(ctx); err != nil {
		return fmt.Errorf("connect to %s: %w", url, err)
	}
	defer d.Close()
	fmt.Fprintf(w, "unit %d, %s: now %s\n", f.unit, tag.Address, held(ctx, d))
	if !yes {
		return fmt.Errorf("nothing was written; add --yes to write %s", text(value))
	}
	if errs := d.(drivers.Writer).Write(ctx, []drivers.Write{{Value: value}}); len(errs) > 0 && errs[0] != nil {
		return errs[0]
	}
	fmt.Fprintf(w, "%s written and confirmed; now %s\n", text(value), held(ctx, d))
	return nil
}

// held says what the device holds.
func held(ctx context.Context, d drivers.Driver) string {
	readings, err := d.Read(ctx, drivers.Ref{}, nil)
	switch {
	case err != nil:
		return "not known: " + err.Error()
	case readings[0].Quality == telemetry.Bad:
		return "not known: " + readings[0].Reason
	}
	return text(readings[0].Value)
}
