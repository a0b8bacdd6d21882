package modbustool

import (
	"encoding/binary"
	"io"
	"time"

	"millrace/gateway/web"
)

// capture writes exchanges as a file for Wireshark (pcap, raw IPv4): whatever the line speaks, they are shown as Modbus TCP between
// 10.0.0.1, the gateway, and 10.0.0.2.
type capture struct {
	w           io.Writer
	transaction uint16
	next        [2]uint32 // sequence numbers of the gateway and of the device
	written     int64
}

const (
	linkRaw = 101 // LINKTYPE_RAW: packets begin with the IP header
	snapLen = 65535
)

// newCapture writes the head of the file, and the handshake of the connection.
func newCapture(w io.Writer, at time.Time) (*capture, error) {
	c := &capture{w: w}
	head := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	head = append(head, 2, 0, 4, 0) // version 2.4
	head = append(head, make([]byte, 8)...)
	head = binary.LittleEndian.AppendUint32(head, snapLen)
	head = binary.LittleEndian.AppendUint32(head, linkRaw)
	if _, err := w.Write(head); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		from  int
		flags byte
	}{{0, flagSYN}, {1, flagSYN | flagACK}, {0, flagACK}} {
		if err := c.packet(at, p.from, p.flags, nil); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// add writes one exchange. What was no answer is left out: it has no form.
func (c *capture) add(e *web.Exchange) error {
	c.transaction++
	at := time.UnixMicro(e.At)
	if err := c.packet(at, 0, flagPSH|flagACK, c.frame(e.Request)); err != nil || len(e.Answer) < 2 {
		return err
	}
	return c.packet(at.Add(time.Duration(e.Took)*time.Microsecond), 1, flagPSH|flagACK, c.frame(e.Answer))
}

// frame puts the header of Modbus TCP before a unit id and a PDU.
func (c *capture) frame(body []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, c.transaction)
	b = append(b, 0, 0)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

// The flags of TCP.
const (
	flagSYN = 0x02
	flagPSH = 0x08
	flagACK = 0x10
)

// packet writes one packet from the gateway (0) or the device (1).
func (c *capture) packet(at time.Time, from int, flags byte, data []byte) error {
	ports := [2]uint16{50502, 502}
	ack := uint32(0)
	if flags&flagACK != 0 {
		ack = c.next[1-from]
	}
	tcp := binary.BigEndian.AppendUint16(nil, ports[from])
	tcp = binary.BigEndian.AppendUint16(tcp, ports[1-from])
	tcp = binary.BigEndian.AppendUint32(tcp, c.next[from])
	tcp = binary.BigEndian.AppendUint32(tcp, ack)
	tcp = append(tcp, 5<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	tcp = append(tcp, data...)
	if c.next[from] += uint32(len(data)); flags&flagSYN != 0 {
		c.next[from]++
	}
	addresses := [2][4]byte{{10, 0, 0, 1}, {10, 0, 0, 2}}
	pseudo := append(append(addresses[from][:4:4], addresses[1-from][:]...), 0, 6, byte(len(tcp)>>8), byte(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], checksum(pseudo, tcp))

	ip := append([]byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0}, addresses[from][:]...)
	ip = append(ip, addresses[1-from][:]...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(tcp)))
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))

	head := binary.LittleEndian.AppendUint32(nil, uint32(at.Unix()))
	head = binary.LittleEndian.AppendUint32(head, uint32(at.Nanosecond()/1000))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(ip)+len(tcp)))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(ip)+len(tcp)))
	n, err := c.w.Write(append(append(head, ip...), tcp...))
	c.written += int64(n)
	return err
}

// checksum is that of IP and TCP (RFC 1071). All parts but the last have an even length.
func checksum(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, p := range parts {
		for i, b := range p {
			if i%2 == 0 {
				sum += uint32(b) << 8
			} else {
				sum += uint32(b)
			}
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
