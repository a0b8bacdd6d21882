package modbustool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers"
	"millrace/drivers/modbus"
	"millrace/drivers/telemetry"
)

const (
	maxRead = 2000 // registers or bits of one read: more than anybody looks at
	maxLook = 8    // registers from one on that a value is looked for in
	maxLost = 16   // requests without an answer of a read: then the rest is left alone
	maxNo   = 100  // refused requests of a read: then the rest is left alone
)

// tableNames are the words for the tables, by the function that reads them.
var tableNames = [...]string{1: "coil", 2: "discrete", 3: "holding", 4: "input"}

func newRead(h Host) *cobra.Command {
	var f lineFlags
	var count int
	var all bool
	cmd := &cobra.Command{
		Use:   "read URL ADDRESS",
		Short: "Read registers and show what they may mean, in every type and order",
		Long: `Read registers of a device, and say of each what value may begin there: raw in hex, then in every type and byte order,
the likely ones first. ADDRESS is that of a config: holding:100 and input:20 count from 0, 40101 and 30021 are the numbers of
manuals. A register that the device refuses is named with its reason, and the others are read around it.`,
		Example: `  millrace modbus read tcp://192.168.1.10 30001 --unit 1 --count 10
  millrace modbus read "rtu:///dev/ttyUSB0?baud=9600" holding:0 --count 2 --all`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			function, first, err := modbus.Locate(args[1])
			if err == nil && (count < 1 || count > maxRead || first+count > 1<<16) {
				err = fmt.Errorf("count %d from %s on: use 1 to %d, up to address 65535", count, args[1], maxRead)
			}
			if err != nil {
				return err
			}
			return h.run(cmd, func(ctx context.Context) error {
				l, err := f.open(ctx, cmd, h, args[0])
				if err != nil {
					return err
				}
				defer l.close()
				r := reader{line: l, unit: f.unit, function: function}
				cells, err := r.cells(ctx, first, count)
				if err != nil {
					return err
				}
				return show(cmd.OutOrStdout(), &r, first, cells, all)
			})
		},
	}
	f.register(cmd)
	cmd.Flags().IntVar(&count, "count", 1, fmt.Sprintf("registers or bits, 1 to %d", maxRead))
	cmd.Flags().BoolVar(&all, "all", false, "every type and order, also the unlikely ones, a line each")
	return cmd
}

// reader reads one table of a unit.
type reader struct {
	*line
	unit, function byte
	lost, refused  int
	alive          bool // something was answered
}

// bits reports whether the table holds bits.
func (r *reader) bits() bool { return r.function <= 2 }

// cell is one register or bit, or why it could not be read.
type cell struct {
	word   uint16
	reason string
}

// cells reads registers or bits in as few requests as the device allows. It fails when the device does not answer at all.
func (r *reader) cells(ctx context.Context, first, count int) ([]cell, error) {
	most := 125
	if r.bits() {
		most = 2000
	}
	if count > most {
		left, err := r.cells(ctx, first, most)
		if err != nil {
			return nil, err
		}
		right, err := r.cells(ctx, first+most, count-most)
		return append(left, right...), err
	}
	if r.lost >= maxLost {
		return slices.Repeat([]cell{{reason: "not asked: too many requests got no answer"}}, count), nil
	}
	cells, why, whole, err := r.block(ctx, first, count)
	switch {
	case errors.Is(err, drivers.ErrDevice) && r.lives(ctx, first, count): // silence may be how it refuses a register
		r.lost++
		why = err.Error()
	case err != nil:
		return nil, fmt.Errorf("read %s:%d: %w", tableNames[r.function], first, err)
	case why == "":
		return cells, nil
	}
	if count == 1 || whole || r.refused >= maxNo {
		return slices.Repeat([]cell{{reason: why}}, count), nil
	}
	half := count / 2
	left, err := r.cells(ctx, first, half)
	if err != nil {
		return nil, err
	}
	right, err := r.cells(ctx, first+half, count-half)
	return append(left, right...), err
}

// block makes one request. why is the exception with which the device refuses it, whole says that it refuses all of the table.
func (r *reader) block(ctx context.Context, first, count int) (cells []cell, why string, whole bool, err error) {
	a, err := r.ask(ctx, r.unit, r.function, byte(first>>8), byte(first), byte(count>>8), byte(count))
	if err != nil {
		return nil, "", false, err
	}
	r.alive = true
	if why = refusal(a); why != "" {
		r.refused++
		return nil, why, a[1] == illegalFunction || a[1] == noPath || a[1] == noTarget, nil
	}
	cells, err = r.values(a[2:], count)
	return cells, "", false, err
}

// lives reports whether the device answers anything: the last register or the first, if nothing was answered before.
func (r *reader) lives(ctx context.Context, first, count int) bool {
	for _, n := range []int{first + count - 1, first} {
		if !r.alive && count > 1 {
			_, _, _, _ = r.block(ctx, n, 1)
		}
	}
	return r.alive && ctx.Err() == nil
}

// The exceptions that are about more than registers.
const (
	illegalFunction = 1
	noPath          = 10
	noTarget        = 11
)

// values decodes the values of an answer.
func (r *reader) values(data []byte, count int) ([]cell, error) {
	cells := make([]cell, count)
	if want := r.bytes(count); len(data) != want {
		return nil, fmt.Errorf("the answer holds %d bytes, not %d", len(data), want)
	}
	for i := range cells {
		if r.bits() {
			cells[i].word = uint16(data[i/8] >> (i % 8) & 1)
		} else {
			cells[i].word = binary.BigEndian.Uint16(data[2*i:])
		}
	}
	return cells, nil
}

func (r *reader) bytes(count int) int {
	if r.bits() {
		return (count + 7) / 8
	}
	return 2 * count
}

// refusal is why a device refuses a request, "" when the answer holds values.
func refusal(answer []byte) string {
	if answer[0]&0x80 == 0 {
		return ""
	}
	return modbus.ExceptionText(answer[1])
}

// show prints what was read. It fails when nothing could be.
func show(w io.Writer, r *reader, first int, cells []cell, all bool) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "unit %d, %s, %d from %d on%s\n", r.unit, tableNames[r.function], len(cells), first, r.through())
	good := 0
	for i, c := range cells {
		name := fmt.Sprintf("%s:%d\t(%s)", tableNames[r.function], first+i, manual(r.function, first+i))
		switch {
		case c.reason != "":
			fmt.Fprintf(out, "%s\t-\t%s\n", name, c.reason)
			continue
		case r.bits():
			fmt.Fprintf(out, "%s\t%d\n", name, c.word)
		default:
			guesses := modbus.Guesses(raw(cells[i:]))
			if all {
				listAll(out, name, cells[i:], guesses)
			} else {
				fmt.Fprintf(out, "%s\t%04X\t%s\n", name, c.word, strings.Join(likely(guesses), "\t"))
			}
		}
		good++
	}
	if err := out.Flush(); err != nil || good > 0 {
		return err
	}
	if len(cells) == 1 {
		return errors.New("the device refuses it; does the table exist, and does the manual count from 1?")
	}
	return errors.New("the device refuses all of them; does the table exist, and does the manual count from 1?")
}

// raw returns the registers that a value at the first one may take: up to one that could not be read.
func raw(cells []cell) []byte {
	var b []byte
	for _, c := range cells[:min(len(cells), maxLook)] {
		if c.reason != "" {
			break
		}
		b = binary.BigEndian.AppendUint16(b, c.word)
	}
	return b
}

// manual is the number that manuals give a register.
func manual(function byte, number int) string {
	digit := [...]int{1: 0, 2: 1, 3: 4, 4: 3}[function]
	width := 4
	if number+1 > 9999 {
		width = 5
	}
	return fmt.Sprintf("%d%0*d", digit, width, number+1)
}

// likely returns the best guesses in words. What two types of one size understand alike is said once.
func likely(guesses []modbus.Guess) []string {
	const most, least = 4, 0.25
	var list []string
	said := map[string]bool{}
	for _, g := range guesses {
		same := fmt.Sprint(g.Registers, text(g.Value))
		if len(list) < most && !said[same] && (g.Likely >= least || len(list) == 0) {
			list = append(list, strings.Join(strings.Fields(g.Type+" "+g.Order), " ")+" "+text(g.Value))
			said[same] = true
		}
	}
	return list
}

func listAll(out io.Writer, name string, cells []cell, guesses []modbus.Guess) {
	for _, g := range guesses {
		fmt.Fprintf(out, "%s\t% X\t%s\t%s\t%s\t\n", name, raw(cells)[:2*g.Registers], g.Type, g.Order, text(g.Value))
		name = "\t"
	}
}

// text is a value for people; what a device calls a text is quoted, because it may hold anything.
func text(v telemetry.Value) string {
	switch v.Kind {
	case telemetry.KindString:
		return strconv.Quote(v.Text)
	case telemetry.KindBool:
		return strconv.FormatBool(v.Bits != 0)
	case telemetry.KindInt:
		return strconv.FormatInt(int64(v.Bits), 10)
	case telemetry.KindUint:
		return strconv.FormatUint(v.Bits, 10)
	case telemetry.KindTime:
		return v.AsTime().Format(time.RFC3339)
	case telemetry.KindFloat32:
		f, _ := v.Float()
		return strconv.FormatFloat(f, 'g', -1, 32)
	}
	f, _ := v.Float()
	return strconv.FormatFloat(f, 'g', -1, 64)
}
