package modbustool

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"millrace/gateway/web"
)

// objectNames are the objects of a device identification (Modbus Application Protocol V1.1b3, 6.21).
var objectNames = map[byte]string{0: "vendor", 1: "product code", 2: "revision", 3: "vendor url", 4: "product", 5: "model", 6: "application"}

// maxParts is how many answers an identification may have.
const maxParts = 32

func newIdentify(h Host) *cobra.Command {
	var f lineFlags
	cmd := &cobra.Command{
		Use:     "identify URL",
		Short:   "Ask a device what it is (functions 43/14 and 17, SunSpec)",
		Long:    "Ask a device for its identification, and for the models of SunSpec. Many know none of it; that says nothing about the device.",
		Example: "  millrace modbus identify tcp://192.168.1.10 --unit 1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return h.run(cmd, func(ctx context.Context) error {
				l, err := f.open(ctx, cmd, h, args[0])
				if err != nil {
					return err
				}
				defer l.close()
				return identify(ctx, cmd.OutOrStdout(), l, f.unit)
			})
		},
	}
	f.register(cmd)
	return cmd
}

// object is one entry of an identification.
type object struct {
	id    byte
	value string
}

func identify(ctx context.Context, w io.Writer, l *line, unit byte) error {
	fmt.Fprintf(w, "unit %d of %s%s\n", unit, l.url, l.through())
	objects, why, err := l.identification(ctx, unit)
	if err != nil {
		why = err.Error()
	}
	for _, o := range objects {
		name := objectNames[o.id]
		if name == "" {
			name = fmt.Sprintf("object %d", o.id)
		}
		fmt.Fprintf(w, "  %s: %q\n", name, o.value)
	}
	if len(objects) == 0 {
		fmt.Fprintf(w, "  function 43/14: %s\n", why)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	server, err2 := l.ask(ctx, unit, 17)
	switch {
	case err2 != nil:
		fmt.Fprintf(w, "  function 17: %v\n", err2)
	case refusal(server) != "":
		fmt.Fprintf(w, "  function 17: %s\n", refusal(server))
	default:
		fmt.Fprintf(w, "  server id: % X %q\n", server[2:], server[2:])
	}
	if err != nil && err2 != nil {
		return errors.New("the device answers neither function; are url and unit right? Try `millrace modbus read`")
	}
	l.sunspec(ctx, w, unit)
	return nil
}

// identification reads all objects that the device has, or says why there are none.
func (l *line) identification(ctx context.Context, unit byte) (all []object, why string, err error) {
	seen := map[byte]bool{}
	parts := 0
	for level := byte(1); level <= 3; level++ {
		for next, more := byte(0), true; more && parts < maxParts; parts++ {
			answer, err := l.ask(ctx, unit, 43, 14, level, next)
			if err != nil {
				return all, why, err
			}
			if why = refusal(answer); why != "" {
				break // of this level
			}
			var list []object
			if list, next, more, err = parseObjects(answer); err != nil {
				return all, why, err
			}
			for _, o := range list {
				if !seen[o.id] {
					all, seen[o.id] = append(all, o), true
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b object) int { return cmp.Compare(a.id, b.id) })
	return all, why, nil
}

// parseObjects reads an answer of function 43/14: its objects, and where to go on if there are more.
func parseObjects(pdu []byte) (list []object, next byte, more bool, err error) {
	if len(pdu) < 7 {
		return nil, 0, false, errors.New("the identification is cut short")
	}
	rest := pdu[7:]
	for range pdu[6] {
		if len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return nil, 0, false, errors.New("the identification is cut short")
		}
		n := 2 + int(rest[1])
		list = append(list, object{rest[0], string(rest[2:n])})
		rest = rest[n:]
	}
	return list, pdu[5], pdu[4] != 0, nil
}

// The places where a SunSpec device may keep its chain of models (SunSpec Device Information Model Specification).
var sunspecBases = []int{40000, 0, 50000}

const (
	sunspecMark = "SunS"
	maxModels   = 100
	lastModel   = 0xffff
)

// sunspec prints the chain of models of a SunSpec device, and nothing for another one.
func (l *line) sunspec(ctx context.Context, w io.Writer, unit byte) {
	two := func(first int) (a, b int, ok bool) {
		if first > 65534 {
			return 0, 0, false
		}
		answer, err := l.ask(ctx, unit, 3, byte(first>>8), byte(first), 0, 2)
		if err != nil || refusal(answer) != "" || len(answer) != 6 {
			return 0, 0, false
		}
		return int(binary.BigEndian.Uint16(answer[2:])), int(binary.BigEndian.Uint16(answer[4:])), true
	}
	for _, base := range sunspecBases {
		a, b, ok := two(base)
		if !ok || string([]byte{byte(a >> 8), byte(a), byte(b >> 8), byte(b)}) != sunspecMark {
			continue
		}
		fmt.Fprintf(w, "  SunSpec from holding:%d on\n", base)
		at := base + 2
		for range maxModels {
			model, length, ok := two(at)
			if !ok || model == lastModel {
				break
			}
			fmt.Fprintf(w, "    model %d at holding:%d, %s%s\n", model, at, web.Count(uint64(length), "register"), templateFor(model, at))
			at += 2 + length
		}
		return
	}
}

// templateFor says which template reads a model.
func templateFor(model, at int) string {
	name := map[int]string{101: "sunspec-inverter-single", 103: "sunspec-inverter", 113: "sunspec-inverter-float", 203: "sunspec-meter", 213: "sunspec-meter-float"}[model]
	if name == "" {
		return ""
	}
	return fmt.Sprintf(": millrace template %s --base %d", name, at)
}
