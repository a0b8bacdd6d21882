package brokersim

import (
	"bufio"
	"net"
	"testing"
)

// BenchmarkBroker measures QoS 1 messages of 200 bytes from one publisher, with and without a subscriber.
func BenchmarkBroker(b *testing.B) {
	for name, qos := range map[string]int{"no subscriber": -1, "subscriber QoS 0": 0, "subscriber QoS 1": 1} {
		b.Run(name, func(b *testing.B) {
			k := New(Options{})
			if err := k.Start(); err != nil {
				b.Fatal(err)
			}
			defer k.Kill()
			pub := rawLogin(b, k, "p")
			got := make(chan struct{})
			if qos >= 0 {
				sub := rawLogin(b, k, "s")
				sub.Write([]byte{subscribe, 6, 0, 1, 0, 1, '#', byte(qos)})
				if _, err := sub.Read(make([]byte, 5)); err != nil { // SUBACK
					b.Fatal(err)
				}
				go drainSubscriber(sub, b.N, got)
			} else {
				close(got)
			}
			b.ResetTimer()
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				w := bufio.NewWriterSize(pub, 64<<10)
				var frame []byte
				payload := make([]byte, 200)
				for i := range b.N {
					frame = appendPublish(frame[:0], "telemetry/shop/press-1/fast", payload, 1, uint16(i%60000)+1)
					w.Write(frame)
				}
				w.Flush()
			}()
			r := bufio.NewReaderSize(pub, 64<<10)
			var buf []byte
			for range b.N {
				_, _, grown, err := readPacket(r, buf)
				if err != nil {
					b.Fatal(err)
				}
				buf = grown
			}
			<-sent
			<-got
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

func rawLogin(b *testing.B, k *Broker, id string) net.Conn {
	b.Helper()
	c, err := net.Dial("tcp", k.Addr())
	if err != nil {
		b.Fatal(err)
	}
	c.Write([]byte{connect, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, 1, id[0]})
	hello := make([]byte, 4)
	if _, err := c.Read(hello); err != nil || hello[3] != 0 {
		b.Fatalf("login: %x, %v", hello, err)
	}
	return c
}

// drainSubscriber takes n messages and acknowledges those of QoS 1, many at a time.
func drainSubscriber(c net.Conn, n int, done chan struct{}) {
	defer close(done)
	r := bufio.NewReaderSize(c, 64<<10)
	var buf, acks []byte
	for n > 0 {
		first, body, grown, err := readPacket(r, buf)
		if err != nil {
			return
		}
		buf = grown
		if first&0xf0 != publish {
			continue
		}
		n--
		if first&2 != 0 {
			topic := int(body[0])<<8 | int(body[1])
			acks = appendShort(acks, puback, uint16(body[2+topic])<<8|uint16(body[3+topic]))
		}
		if r.Buffered() == 0 && len(acks) > 0 {
			c.Write(acks)
			acks = acks[:0]
		}
	}
}
