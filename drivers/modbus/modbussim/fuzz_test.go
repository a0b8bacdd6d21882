package modbussim

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"testing"
	"time"
)

// sink takes what a conn answers.
type sink struct{ got []byte }

func (*sink) Read([]byte) (int, error) { return 0, io.EOF }
func (s *sink) Write(b []byte) (int, error) {
	s.got = append(s.got, b...)
	return len(b), nil
}
func (*sink) Close() error                     { return nil }
func (*sink) SetWriteDeadline(time.Time) error { return nil }

// FuzzRequests throws bytes at each framing: nothing panics, nothing is kept but the beginning of a frame, and what is answered is whole
// frames that are no longer than Modbus has them.
func FuzzRequests(f *testing.F) {
	for _, seed := range []string{"00010000000601030000000a", "00020000000601050003ff00", "00030000000b0110000000020400010002", "000400000005012b0e0100", "00050000000f0117000000010004000204000a000b",
		"01030000000ac5cd", "0111c02c", "3a30313033303030303030304646320d0a"} {
		b, _ := hex.DecodeString(seed)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, scheme := range []string{"tcp", "rtuovertcp", "asciiovertcp"} {
			s := &Server{options: Options{Transport: scheme}}
			s.Unit(1).Identify("Acme", "PX1", "1.2")
			to := &sink{}
			c := &conn{server: s, socket: to, done: make(chan struct{}), packing: packingOf(scheme)}
			rest, ok := c.take(in[:min(len(in), 8<<10)])
			if ok && len(rest) > 4<<10 {
				t.Errorf("%s: %d bytes are kept", scheme, len(rest))
			}
			for out := to.got; scheme == "tcp" && len(out) > 0; {
				n := maxADU + 1
				if len(out) > header {
					n = 6 + int(binary.BigEndian.Uint16(out[4:]))
				}
				if n > maxADU || n > len(out) {
					t.Fatalf("answered %x", to.got)
				}
				out = out[n:]
			}
		}
	})
}
