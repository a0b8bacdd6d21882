package modbustool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"millrace/gateway/web"
)

// traceFlags say what to show.
type traceFlags struct {
	config, path, pcap string
	count              int
	duration           time.Duration
	size               int
}

func newTrace(h Host) *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:   "trace DEVICE",
		Short: "Show what goes over the line of a device of the running gateway",
		Long: `Show every request on the line of a device and what came of it, as it happens: other devices on the same line too. The gateway goes
on as before; what is not taken in time is left out and counted. With --pcap it is also written for Wireshark, as Modbus TCP
whatever the line speaks. It ends with Ctrl-C, after --for or --count, or when a reload exchanges the line.`,
		Example: `  millrace modbus trace press-1 --config millrace.yaml
  millrace modbus trace press-1 --for 1m --pcap press-1.pcap`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.count < 0 || f.duration < 0 || f.size < 1 || f.size > 4096 {
				return errors.New("count and for are at least 0, max-size is 1 to 4096 MiB")
			}
			return h.run(cmd, func(ctx context.Context) error { return f.trace(ctx, cmd.OutOrStdout(), h, args[0]) })
		},
	}
	cmd.Flags().StringVarP(&f.config, "config", "c", "millrace.yaml", "config file; its buffer.path is where the gateway is asked")
	cmd.Flags().StringVar(&f.path, "path", "", "directory of the gateway's store, instead of a config")
	cmd.Flags().StringVar(&f.pcap, "pcap", "", "file for Wireshark; one that is there is written over")
	cmd.Flags().IntVar(&f.size, "max-size", 100, "of that file in MiB, 1 to 4096: then the trace ends")
	cmd.Flags().IntVar(&f.count, "count", 0, "end after so many exchanges (default: none)")
	cmd.Flags().DurationVar(&f.duration, "for", 0, "end after this time (default: at Ctrl-C)")
	return cmd
}

// errEnough ends a trace.
var errEnough = errors.New("enough")

func (f *traceFlags) trace(ctx context.Context, w io.Writer, h Host, device string) error {
	dir, err := f.path, error(nil)
	if dir == "" {
		if dir, err = h.StorePath(f.config); dir == "" {
			return err
		}
	}
	if f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	c, err := web.Dial(ctx, dir)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	defer c.Close()
	file, pcap, err := f.open()
	if err != nil {
		return err
	}
	seen := 0
	err = c.Trace(ctx, device, func(e *web.Exchange) error {
		if _, err := io.WriteString(w, said(e)); err != nil {
			return err
		}
		if pcap != nil {
			if err := pcap.add(e); err != nil {
				return err
			}
			if pcap.written > int64(f.size)<<20 {
				fmt.Fprintf(w, "%s has %d MiB\n", f.pcap, f.size)
				return errEnough
			}
		}
		if seen++; seen == f.count {
			return errEnough
		}
		return nil
	})
	if file != nil {
		err = errors.Join(err, file.Close())
	}
	if ctx.Err() != nil || errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// open opens the file for Wireshark, if there is to be one.
func (f *traceFlags) open() (*os.File, *capture, error) {
	if f.pcap == "" {
		return nil, nil, nil
	}
	file, err := os.Create(f.pcap)
	if err != nil {
		return nil, nil, err
	}
	c, err := newCapture(file, time.Now())
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, c, nil
}

// said is one exchange in one line.
func said(e *web.Exchange) string {
	lost := ""
	if e.Lost > 0 {
		lost = fmt.Sprintf("… %d exchanges are not shown: they came too fast\n", e.Lost)
	}
	if len(e.Request) < 2 {
		return lost
	}
	at := time.UnixMicro(e.At).UTC().Format("15:04:05.000000")
	return fmt.Sprintf("%s%s  %6.1f ms  unit %d: %s → %s\n", lost, at, float64(e.Took)/1000, e.Request[0], request(e.Request[1:]), outcome(e))
}

// request says a request in words.
func request(pdu []byte) string {
	function := pdu[0]
	number := func(i int) int { return int(binary.BigEndian.Uint16(pdu[i:])) }
	switch {
	case len(pdu) >= 5 && function >= 1 && function <= 4:
		return fmt.Sprintf("read %s:%d, %d", tableNames[function], number(1), number(3))
	case len(pdu) == 5 && function == 5:
		return fmt.Sprintf("write coil:%d = %d", number(1), pdu[3]&1)
	case len(pdu) == 5 && function == 6:
		return fmt.Sprintf("write holding:%d = % X", number(1), pdu[3:])
	case len(pdu) > 6 && (function == 15 || function == 16):
		return fmt.Sprintf("write %s:%d, %d = % X", map[byte]string{15: "coil", 16: "holding"}[function], number(1), number(3), pdu[6:])
	case len(pdu) > 10 && function == 23:
		return fmt.Sprintf("write holding:%d, %d = % X, and read holding:%d, %d", number(5), number(7), pdu[10:], number(1), number(3))
	case len(pdu) == 7 && function == 22:
		return fmt.Sprintf("write bits of holding:%d, and % X or % X", number(1), pdu[3:5], pdu[5:])
	}
	return fmt.Sprintf("function %d, % X", function, pdu[1:])
}

// outcome says what came of it.
func outcome(e *web.Exchange) string {
	const most = 32 // bytes of values in one line
	switch a := e.Answer; {
	case len(a) < 3:
		if len(e.Raw) > 0 {
			return fmt.Sprintf("%s; instead % X", e.Reason, e.Raw[:min(len(e.Raw), most)])
		}
		return e.Reason
	case refusal(a[1:]) != "":
		return refusal(a[1:])
	case (a[1] <= 4 || a[1] == 23) && len(a) > most+3:
		return fmt.Sprintf("% X … (%d bytes)", a[3:3+most], len(a)-3)
	case a[1] <= 4 || a[1] == 23:
		return fmt.Sprintf("% X", a[3:])
	}
	return "done"
}
