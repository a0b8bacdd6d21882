package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// newFloor is the least program that does the job: it polls each device and publishes one JSON message a poll at QoS 1.
// No buffer, no config, no retry, no check of what comes back. Whatever a gateway costs beyond it is the price of its promises.
func newFloor() *cobra.Command {
	var f floor
	cmd := &cobra.Command{
		Use:    "floor",
		Short:  "Run the least program that polls and publishes (started by the scenarios)",
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return f.run(ctx)
		},
	}
	cmd.Flags().StringSliceVar(&f.devices, "device", nil, "host:port of each device")
	cmd.Flags().StringVar(&f.broker, "broker", "", "host:port of the broker")
	cmd.Flags().IntVar(&f.tags, "tags", 1000, "tags a device")
	cmd.Flags().StringVar(&f.kind, "type", "uint16", "uint16 or float32")
	cmd.Flags().DurationVar(&f.interval, "interval", time.Second, "poll interval")
	return cmd
}

type floor struct {
	devices  []string
	broker   string
	tags     int
	kind     string
	interval time.Duration

	mu  sync.Mutex
	out *bufio.Writer
}

func (f *floor) run(ctx context.Context) error {
	conn, err := net.Dial("tcp", f.broker)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(packet(0x10, []byte("\x00\x04MQTT\x04\x02\x00\x00\x00\x05floor"))); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }() // the PUBACKs
	f.out = bufio.NewWriterSize(conn, 64<<10)
	var wg sync.WaitGroup
	for i, address := range f.devices {
		wg.Go(func() { err = f.poll(ctx, address, fmt.Sprintf("d%d", i)) })
	}
	wg.Wait()
	return err
}

const maxBlock = 125 // registers a request: Modbus Application Protocol V1.1b3 §6.3

func (f *floor) poll(ctx context.Context, address, name string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	words := f.tags
	if f.kind == "float32" {
		words *= 2
	}
	var requests [][]byte
	for at := 0; at < words; at += maxBlock {
		requests = append(requests, readHolding(at, min(maxBlock, words-at)))
	}
	names := make([]string, f.tags)
	for i := range names {
		names[i] = `,"t` + strconv.Itoa(i) + `":`
	}
	regs, reply, msg := make([]byte, 0, 2*words), make([]byte, 9+2*maxBlock), []byte(nil)
	tick := time.NewTicker(f.interval)
	defer tick.Stop()
	for seq := 0; ; seq++ {
		regs = regs[:0]
		for _, q := range requests {
			n := 9 + 2*int(binary.BigEndian.Uint16(q[10:]))
			if _, err := conn.Write(q); err != nil {
				return err
			}
			if _, err := io.ReadFull(conn, reply[:n]); err != nil {
				return err
			}
			regs = append(regs, reply[9:n]...)
		}
		msg = f.encode(msg[:0], name, seq, names, regs)
		if err := f.publish(name, seq, msg); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func readHolding(at, n int) []byte {
	q := []byte{0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(q[8:], uint16(at))
	binary.BigEndian.PutUint16(q[10:], uint16(n))
	return q
}

func (f *floor) encode(b []byte, name string, seq int, names []string, regs []byte) []byte {
	b = fmt.Appendf(b, `{"gateway":"floor","device":"%s","group":"g","epoch":"0","seq":%d,"ts":%d,"values":{`, name, seq+1, time.Now().UnixMilli())
	for i, n := range names {
		if i == 0 {
			n = n[1:]
		}
		b = append(b, n...)
		if f.kind == "float32" {
			b = strconv.AppendFloat(b, float64(float32frombits(binary.BigEndian.Uint32(regs[4*i:]))), 'f', -1, 32)
		} else {
			b = strconv.AppendUint(b, uint64(binary.BigEndian.Uint16(regs[2*i:])), 10)
		}
	}
	return append(b, `},"bad":{}}`...)
}

// publish writes one PUBLISH at QoS 1 (MQTT 3.1.1 §3.3).
func (f *floor) publish(name string, seq int, payload []byte) error {
	topic := "floor/" + name
	f.mu.Lock()
	defer f.mu.Unlock()
	head := binary.AppendUvarint([]byte{0x32}, uint64(2+len(topic)+2+len(payload)))
	head = append(head, byte(len(topic)>>8), byte(len(topic)))
	head = append(head, topic...)
	head = binary.BigEndian.AppendUint16(head, uint16(seq%65535+1))
	_, _ = f.out.Write(head)
	_, _ = f.out.Write(payload)
	return f.out.Flush()
}
