package modbus

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

// TestFences: what is asked after a loss, and that nothing more is as long as all goes well.
func TestFences(t *testing.T) {
	for name, c := range map[string]struct {
		words []string
		hears bool   // the adapter hears itself
		want  string // the requests of the poll with the loss: function, address and count
	}{
		"part of a block":         {run("holding", 100, 9), false, "3/100/9 lost, 3/100/2, 3/100/1, 3/100/9"},
		"the block is one number": {[]string{"holding:100 uint32", "coil:3"}, false, "1/3/1, 3/100/2 lost, 3/100/1, 3/100/2"},
		"single registers":        {[]string{"holding:100", "holding:300"}, false, "3/100/1 lost, 3/300/1, 3/300/1, 3/100/1, 3/100/1"},
		"an adapter hears itself": {[]string{"holding:100", "holding:300"}, true, "3/100/1 lost, 3/300/1, 3/300/1, 3/100/1, 3/100/1"},
		"another function":        {[]string{"input:100", "holding:300"}, false, "4/100/1 lost, 3/300/1, 4/100/1"},
	} {
		for _, transport := range []string{"rtuovertcp", "asciiovertcp"} {
			t.Run(name+" "+transport, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					b := overdueLine(t, transport, &laggard{after: func() time.Duration { return 0 }}, c.words)
					if dial := b.dialer; c.hears {
						b.driver.Close()
						b.driver.link.dialer = func(ctx context.Context, network, address string) (net.Conn, drain, error) {
							c, d, err := dial(ctx, network, address)
							return hearing{c.(*memoryConn)}, d, err
						}
						_ = b.driver.Connect(t.Context())
					}
					b.driver.link.several = false // no wait is brief
					b.read(drivers.Ref{})         // the first request after the line was opened is made twice
					var asked []string
					b.driver.Trace(func(e *drivers.Exchange) {
						q := modbussim.Request{Addr: uint16(e.Request[2])<<8 | uint16(e.Request[3]), Count: uint16(e.Request[4])<<8 | uint16(e.Request[5])}
						words := fmt.Sprintf("%d/%d/%d", e.Request[1], q.Addr, q.Count)
						if e.Reason != "" {
							words += " lost"
						}
						asked = append(asked, words)
					})
					unhurt := b.requests(func() { b.read(drivers.Ref{}) })
					lost := modbussim.Holding
					if strings.HasPrefix(c.words[0], "input") {
						lost = modbussim.Input
					}
					b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Times: 1, Match: func(q modbussim.Request) bool { return q.Table == lost }})
					asked = nil
					if bad, err := b.read(drivers.Ref{}); wrong(err) {
						t.Errorf("%s, %s: %d bad, %v", name, transport, bad, err)
					}
					if got := strings.Join(asked, ", "); got != c.want {
						t.Errorf("%s, %s: asked %s, want %s", name, transport, got, c.want)
					}
					if n := b.requests(func() { b.read(drivers.Ref{}) }); !strings.Contains(c.want, "3/300/1, 3/300/1") && n != unhurt {
						t.Errorf("%s, %s: %d requests in the next poll, %d before", name, transport, n, unhurt)
					}
				})
			})
		}
	}
}
