package importer

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"millrace/configs/templates"
)

// NewTemplate returns the command `millrace template [NAME]`: without a name it lists the built-in register lists, with
// one it writes a list of one device to standard output, which a config can include.
func NewTemplate() *cobra.Command {
	var o Options
	var p templates.Params
	form := "config"
	cmd := &cobra.Command{
		Use:   "template [NAME]",
		Short: "Print the register list of a common device as a device of a config",
		Long: "template lists the register lists that are built in; with a NAME it prints that one as a list of devices that a config can\n" +
			"include. None was tried on the device itself: compare a voltage and an energy with its display first.",
		Example: "  millrace template eastron-sdm630 --device meter-1 --url tcp://192.168.1.10:502 --unit 1 > devices/meter-1.yaml",
		Args:    cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return templates.List(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listTemplates(cmd.OutOrStdout())
			}
			t, err := templates.Load(args[0])
			if err != nil {
				return err
			}
			switch form {
			case "config":
			case "template":
				raw, err := templates.Raw(args[0])
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(raw)
				return err
			case "openmodbus":
				problems, err := writeOpenModbus(cmd.OutOrStdout(), t, p)
				for _, problem := range problems {
					fmt.Fprintln(cmd.ErrOrStderr(), problem)
				}
				return err
			default:
				return fmt.Errorf("there is no output %q; use config, template or openmodbus", form)
			}
			r, err := fromTemplate(t, o, p)
			if err != nil {
				return err
			}
			report(cmd.ErrOrStderr(), r)
			return r.WriteYAML(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&o.Device, "device", "", "name of the device (default the template's)")
	cmd.Flags().StringVar(&o.URL, "url", placeholder, "url of the device")
	cmd.Flags().IntVar(&p.Unit, "unit", 1, "unit id, 0 to 255")
	cmd.Flags().DurationVar(&p.Interval, "interval", 0, "interval of the fastest groups (default the template's)")
	cmd.Flags().StringVar(&p.Prefix, "prefix", "", "before the name of each group and tag")
	cmd.Flags().StringVarP(&form, "output", "o", form, "config; template: the file itself, to make one of your own for templates: of a config; or openmodbus: a device profile of OpenModbusSpecs")
	cmd.Flags().IntVar(&p.Base, "base", 0, "register that offsets count from, for SunSpec models (default the template's)")
	return cmd
}

func listTemplates(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "NAME\tCOMPARED WITH\tDEVICE")
	for _, name := range templates.List() {
		t, err := templates.Load(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s\t%s\t%s\n", name, t.Verified, t.Device)
	}
	return out.Flush()
}

// fromTemplate makes a device of a template. What the config cannot say yet is named.
func fromTemplate(t *templates.Template, o Options, p templates.Params) (*Result, error) {
	if p.Unit < 0 || p.Unit > 255 {
		return nil, fmt.Errorf("unit %d is out of range; use 0 to 255", p.Unit)
	}
	groups, err := t.Expand(p)
	if err != nil {
		return nil, err
	}
	if o.Device == "" {
		o.Device = t.Name
	}
	d := &Device{Name: o.Device, URL: o.URL, Unit: p.Unit, Order: t.Order}
	options := t.Options(p)
	for _, k := range []string{"max_registers", "max_gap"} {
		if options[k] != "" {
			d.Options = append(d.Options, [2]string{k, options[k]})
		}
	}
	r := &Result{Devices: []*Device{d}}
	remark(r, t.Device, "compared with: %s (%s)", t.Verified, t.Source.Title)
	if t.Note != "" {
		remark(r, t.Device, "%s", t.Note)
	}
	for _, g := range groups {
		out := &Group{Name: g.Name, Interval: g.Interval}
		for _, tag := range g.Tags {
			x := Tag{Name: tag.Name, Address: tag.Address, Type: tag.Type, Unit: tag.Unit, Description: tag.Description, Scale: tag.Scale, Offset: tag.Offset,
				Order: tag.Options["order"], Invalid: tag.Options["invalid"]}
			if x.Length, err = strconv.Atoi(tag.Options["length"]); err != nil && tag.Options["length"] != "" {
				return nil, fmt.Errorf("tag %q: length %q: %w", tag.Name, tag.Options["length"], err)
			}
			out.Tags = append(out.Tags, x)
			r.Tags++
		}
		for _, x := range g.Derived {
			out.Tags = append(out.Tags, Tag{Name: x.Name, Expr: x.Expr, Unit: x.Unit, Description: x.Description})
			r.Tags++
		}
		d.Groups = append(d.Groups, out)
	}
	return r, nil
}

func remark(r *Result, where, format string, args ...any) {
	r.Problems = append(r.Problems, Problem{Where: where, What: fmt.Sprintf(format, args...)})
}
