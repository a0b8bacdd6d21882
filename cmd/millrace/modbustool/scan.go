package modbustool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers"

	"millrace/gateway/web"
)

// scanFlags say what to look for.
type scanFlags struct {
	lineFlags
	units, tables string
	from, to      int
	block, fine   int
	pause         time.Duration
	out           string
}

func newScan(h Host) *cobra.Command {
	var f scanFlags
	cmd := &cobra.Command{
		Use:   "scan URL",
		Short: "Find the unit ids on a line and the registers that each lets you read",
		Long: `Ask each unit id for one register, and of those that answer find out which ranges of each table can be read. It makes one
request at a time with a pause after each. A refused block is halved down to --fine registers; smaller islands stay unseen. Where too
much meets silence, the rest of a block, or of a table after three silent blocks, is left out, and the report says what.
With --out every finished block is written to a file at once; the same command with the same file goes on where it was
interrupted. On a line of a running gateway each silent unit id costs the others a timeout. Reading can have effects on a few
devices (counters that a read clears): look into the manual first.`,
		Example: `  millrace modbus scan "rtu:///dev/ttyUSB0?baud=9600" --units 1-32 --to 999 --out line-2.scan
  millrace modbus scan tcp://192.168.1.10 --units 1 --tables holding`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			units, tables, err := f.parse()
			if err != nil {
				return err
			}
			return h.run(cmd, func(ctx context.Context) error {
				l, err := f.open(ctx, cmd, h, args[0])
				if err != nil {
					return err
				}
				defer l.close()
				s := &scanner{line: l, flags: &f, progress: cmd.ErrOrStderr(), done: map[piece]found{}}
				if err := s.resume(); err != nil {
					return err
				}
				err = errors.Join(s.scan(ctx, units, tables), s.log.Close())
				s.report(cmd.OutOrStdout(), units, tables)
				if ctx.Err() != nil && f.out != "" {
					return fmt.Errorf("interrupted; the same command goes on from %q", f.out)
				}
				return err
			})
		},
	}
	f.register(cmd)
	_ = cmd.Flags().MarkHidden("unit") // --units says it
	cmd.Flags().StringVar(&f.units, "units", "1-247", "unit ids, such as 1-32,100")
	cmd.Flags().StringVar(&f.tables, "tables", "holding,input,coil,discrete", "tables to look into; \"none\" finds only the units")
	cmd.Flags().IntVar(&f.from, "from", 0, "first address, 0 to 65535")
	cmd.Flags().IntVar(&f.to, "to", 9999, "last address, 0 to 65535")
	cmd.Flags().IntVar(&f.block, "block", 100, "registers or bits in one request, 1 to 125")
	cmd.Flags().IntVar(&f.fine, "fine", 10, "down to how many registers a refused block is halved, 1 to 125")
	cmd.Flags().DurationVar(&f.pause, "pause", 20*time.Millisecond, "after each request, 0 to 10s")
	cmd.Flags().StringVar(&f.out, "out", "", "file that what was found is added to, and read from at the start")
	return cmd
}

// parse checks what the flags say.
func (f *scanFlags) parse() (units []byte, tables []byte, err error) {
	for _, c := range []struct {
		name            string
		value, low, top int
	}{{"from", f.from, 0, 65535}, {"to", f.to, f.from, 65535}, {"block", f.block, 1, 125}, {"fine", f.fine, 1, 125}} {
		if c.value < c.low || c.value > c.top {
			return nil, nil, fmt.Errorf("%s %d: use %d to %d", c.name, c.value, c.low, c.top)
		}
	}
	if f.pause < 0 || f.pause > 10*time.Second {
		return nil, nil, fmt.Errorf("pause %v: use 0 to 10s", f.pause)
	}
	if units, err = parseUnits(f.units); err != nil || f.tables == "none" {
		return units, nil, err
	}
	for word := range strings.SplitSeq(f.tables, ",") {
		n := slices.Index(tableNames[1:], word) + 1
		if n == 0 {
			return nil, nil, fmt.Errorf("tables: there is no table %q; use holding, input, coil, discrete or none", word)
		}
		tables = append(tables, byte(n))
	}
	return units, tables, nil
}

// parseUnits reads "1-32,100".
func parseUnits(text string) (units []byte, err error) {
	var in [256]bool
	for part := range strings.SplitSeq(text, ",") {
		low, high, ranged := strings.Cut(part, "-")
		if !ranged {
			high = low
		}
		a, err := strconv.ParseUint(low, 10, 8)
		b, err2 := strconv.ParseUint(high, 10, 8)
		if err != nil || err2 != nil || a > b {
			return nil, fmt.Errorf("units %q: write them like 1-32,100; a unit id is 0 to 255", text)
		}
		for n := a; n <= b; n++ {
			in[n] = true
		}
	}
	for n, wanted := range in {
		if wanted {
			units = append(units, byte(n))
		}
	}
	return units, nil
}

// scanner is one scan.
type scanner struct {
	*line
	flags    *scanFlags
	progress io.Writer
	said     time.Time // when progress was shown last
	asked    int
	log      scanLog
	done     map[piece]found
}

// piece is what is found out at once: whether a unit answers (no table), or one block of a table.
type piece struct {
	unit, table byte
	first       int
}

// found is what came of a piece.
type found struct {
	There  bool     `json:"there,omitempty"`  // the unit answers
	Read   [][2]int `json:"read,omitempty"`   // first and last address of what can be read
	Reason string   `json:"reason,omitempty"` // why the rest cannot
	Left   [][2]int `json:"left,omitempty"`   // what was not looked at, because too much met silence
	Shut   bool     `json:"shut,omitempty"`   // the device refuses the whole table
	Silent bool     `json:"silent,omitempty"` // nothing was answered
}

func (s *scanner) scan(ctx context.Context, units, tables []byte) error {
	for i, u := range units {
		there, err := s.once(ctx, piece{unit: u}, func() (found, error) { return s.probe(ctx, u) })
		if err != nil {
			return err
		}
		s.say(fmt.Sprintf("unit %d, %d of %d", u, i+1, len(units)))
		if !there.There {
			continue
		}
		for _, t := range tables {
			if err := s.table(ctx, u, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// once returns what is known of a piece, or finds it out and keeps it.
func (s *scanner) once(ctx context.Context, p piece, look func() (found, error)) (found, error) {
	if f, ok := s.done[p]; ok {
		return f, nil
	}
	if err := ctx.Err(); err != nil {
		return found{}, err
	}
	f, err := look()
	if err != nil {
		return f, err
	}
	s.done[p] = f
	return f, s.log.add(p, f)
}

// probe asks a unit for one register. Any answer of its own will do, a refusal too.
func (s *scanner) probe(ctx context.Context, unit byte) (found, error) {
	answer, err := s.pausing(ctx, unit, 3, s.flags.from, 1)
	switch {
	case ctx.Err() != nil:
		return found{}, ctx.Err()
	case err != nil && !errors.Is(err, drivers.ErrDevice):
		return found{}, err // the line itself fails
	case err != nil:
		return found{Reason: err.Error()}, nil
	case answer[0]&0x80 != 0 && (answer[1] == noPath || answer[1] == noTarget):
		return found{Reason: refusal(answer)}, nil
	}
	return found{There: true}, nil
}

// pausing asks, and leaves the line alone for a while afterwards.
func (s *scanner) pausing(ctx context.Context, unit, function byte, first, count int) ([]byte, error) {
	s.asked++
	answer, err := s.ask(ctx, unit, function, byte(first>>8), byte(first), byte(count>>8), byte(count))
	select {
	case <-ctx.Done():
	case <-time.After(s.flags.pause):
	}
	return answer, err
}

// maxSilentBlocks is after how many blocks in a row without any answer the rest of a table is left alone.
const maxSilentBlocks = 3

// table looks into one table of a unit.
func (s *scanner) table(ctx context.Context, unit, table byte) error {
	silent := 0
	for first := s.flags.from; first <= s.flags.to; first += s.flags.block {
		last := min(first+s.flags.block-1, s.flags.to)
		b := &blockScan{scanner: s, unit: unit, table: table, found: found{Silent: true}}
		f, err := s.once(ctx, piece{unit, table, first}, func() (found, error) { err := b.look(ctx, first, last); return b.found, err })
		if err != nil {
			return err
		}
		s.say(fmt.Sprintf("unit %d, %s %d of %d to %d", unit, tableNames[table], last, s.flags.from, s.flags.to))
		if f.Shut {
			return nil
		}
		if silent++; !f.Silent {
			silent = 0
		}
		if silent >= maxSilentBlocks {
			return nil
		}
	}
	return nil
}

// say shows progress now and then.
func (s *scanner) say(what string) {
	if time.Since(s.said) < time.Second {
		return
	}
	s.said = time.Now()
	fmt.Fprintf(s.progress, "%s; %s so far\n", what, web.Count(uint64(s.asked), "request"))
}

// blockScan looks into one block of a table.
type blockScan struct {
	*scanner
	unit, table byte
	found
	lost, row int // requests without an answer, and of these since the last answer
}

// How many requests of one block may go without an answer. One silent register costs eight in a row before its neighbours are asked.
const (
	maxBlockLost = 24
	maxLostInRow = 10
)

// look finds the ranges of a block that can be read, by halving what is refused or met by silence.
func (b *blockScan) look(ctx context.Context, first, last int) error {
	if b.lost >= maxBlockLost || b.row >= maxLostInRow {
		b.Left = join(b.Left, [2]int{first, last})
		return nil // a device that is silent where others refuse: enough of it
	}
	answer, err := b.pausing(ctx, b.unit, b.table, first, last-first+1)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, drivers.ErrDevice):
		b.lost++
		b.row++
		b.Reason = err.Error()
	case err != nil:
		return err
	case refusal(answer) == "":
		b.row, b.Silent, b.Read = 0, false, join(b.Read, [2]int{first, last})
		return nil
	default:
		b.row, b.Reason, b.Shut, b.Silent = 0, refusal(answer), answer[1] == illegalFunction, false
	}
	near := len(b.Read) > 0 && b.Read[len(b.Read)-1][1] == first-1 // the edge of a range is found exactly
	if size := last - first + 1; b.Shut || size == 1 || size <= b.flags.fine && !near {
		return nil
	}
	mid := (first + last) / 2
	if err := b.look(ctx, first, mid); err != nil {
		return err
	}
	return b.look(ctx, mid+1, last)
}

// join adds a range to those before it.
func join(list [][2]int, r [2]int) [][2]int {
	if n := len(list); n > 0 && list[n-1][1] == r[0]-1 {
		list[n-1][1] = r[1]
		return list
	}
	return append(list, r)
}

// report prints what is known.
func (s *scanner) report(w io.Writer, units, tables []byte) {
	there := 0
	for _, u := range units {
		if !s.done[piece{unit: u}].There {
			continue
		}
		there++
		fmt.Fprintf(w, "unit %d\n", u)
		for _, t := range tables {
			read, left, reason := s.ranges(u, t)
			text := words(read)
			if text == "" && reason != "" {
				text = "nothing: " + reason
			}
			if len(left) > 0 {
				text = strings.TrimPrefix(text+"; not looked at: "+words(left), "; ")
			}
			fmt.Fprintf(w, "  %s: %s\n", tableNames[t], text)
		}
	}
	fmt.Fprintf(w, "%d of %d unit ids answer; %s%s\n", there, len(units), web.Count(uint64(s.asked), "request"), s.through())
	if there < len(units) {
		fmt.Fprintf(w, "those that do not were asked for holding:%d only, where a device may be silent; --from begins at another register\n", s.flags.from)
	}
}

// ranges joins what was found in the blocks of a table, and what was left out: for too much silence, or by an interruption.
func (s *scanner) ranges(unit, table byte) (read, left [][2]int, reason string) {
	for first := s.flags.from; first <= s.flags.to; first += s.flags.block {
		f, asked := s.done[piece{unit, table, first}]
		if !asked {
			left = join(left, [2]int{first, min(first+s.flags.block-1, s.flags.to)})
		}
		if f.Reason != "" {
			reason = f.Reason
		}
		for _, r := range f.Read {
			read = join(read, r)
		}
		for _, r := range f.Left {
			left = join(left, r)
		}
		if f.Shut {
			break
		}
	}
	return read, left, reason
}

// words writes ranges as "5-72, 120".
func words(list [][2]int) string {
	var text []string
	for _, r := range list {
		if r[0] == r[1] {
			text = append(text, strconv.Itoa(r[0]))
		} else {
			text = append(text, fmt.Sprintf("%d-%d", r[0], r[1]))
		}
	}
	return strings.Join(text, ", ")
}
