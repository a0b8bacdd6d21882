package modbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"millrace/drivers/telemetry"
)

// script is a port that gives the bytes of a peer in portions and then silence.
type script struct {
	written bytes.Buffer
	in      []byte
	portion int
	end     error
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, s.end
	}
	n := copy(b[:min(len(b), s.portion)], s.in)
	s.in = s.in[n:]
	return n, nil
}
func (s *script) Write(b []byte) (int, error)     { return s.written.Write(b) }
func (s *script) Close() error                    { return nil }
func (s *script) SetDeadline(time.Time) error     { return nil }
func (s *script) SetReadDeadline(time.Time) error { return nil }
func fromHex(t testing.TB, text string) (b []byte) {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFramesOfTheSpecification packs the request of the Modbus Application Protocol V1.1b3, 6.3, and takes its answer. The
// RTU checksum is that of pymodbus, the LRC was added up by hand.
func TestFramesOfTheSpecification(t *testing.T) {
	values := "022b 0000 0064"
	for _, c := range []struct {
		framing      framing
		sent, answer string
	}{
		{mbap, "0008 0000 0006 11 03 006b 0003", "0008 0000 0009 11 03 06" + values},
		{rtu, "11 03 006b 0003 7687", ""},
		{ascii, hex.EncodeToString([]byte(":1103006B00037E\r\n")), hex.EncodeToString([]byte(":110306022B0000006455\r\n"))},
	} {
		s := &script{portion: 3, end: os.ErrDeadlineExceeded, in: fromHex(t, c.answer)}
		if c.framing == rtu {
			s.in = fromHex(t, "11 03 06"+values)
			s.in = binary.LittleEndian.AppendUint16(s.in, slowCRC(s.in))
		}
		w := &wire{port: s, framing: c.framing, number: 7}
		q := &request{unit: 0x11, pdu: fromHex(t, "03 006b 0003"), want: 6}
		pdu, err := w.exchange(context.Background(), q, time.Second)
		if got := hex.EncodeToString(s.written.Bytes()); got != strings.ReplaceAll(c.sent, " ", "") {
			t.Errorf("framing %d: sent %s, want %s", c.framing, got, c.sent)
		}
		if err != nil || !bytes.Equal(pdu[2:], fromHex(t, values)) {
			t.Errorf("framing %d: %x, %v", c.framing, pdu, err)
		}
	}
}

// slowCRC is the checksum as the specification draws it, bit by bit.
func slowCRC(b []byte) uint16 {
	crc := uint16(0xffff)
	for _, v := range b {
		crc ^= uint16(v)
		for range 8 {
			if crc&1 == 1 {
				crc = crc>>1 ^ 0xa001
			} else {
				crc >>= 1
			}
		}
	}
	return crc
}

// FuzzAnswer gives any bytes as the answer to a request, on each framing: nothing but a whole and matching frame is taken,
// never more than is borne is read, and an answer that stands in the bytes after junk of other transactions is found.
func FuzzAnswer(f *testing.F) {
	f.Add(uint8(0), uint8(7), []byte("\x00\x08\x00\x00\x00\x09\x11\x03\x06\x02\x2b\x00\x00\x00\x64"))
	f.Add(uint8(1), uint8(1), []byte("\x11\x03\x06\x02\x2b\x00\x00\x00\x64\xc8\xba"))
	f.Add(uint8(2), uint8(3), []byte(":110306022B0000006455\r\n"))
	f.Add(uint8(16), uint8(3), []byte("\x00\x08\x00\x00\x00\x05\x11\x17\x02\x00\x03"))
	f.Add(uint8(0), uint8(255), []byte("\x00\x07\x00\x00\x00\x03\x11\x83\x02\x00\x08\x00\x00\x00\x03\x11\x83\x02"))
	f.Add(uint8(0), uint8(9), bytes.Repeat([]byte("\x00\x00\x00\x00\x00\x02\x11\x83"), 3000))
	f.Fuzz(func(t *testing.T, how, portion uint8, in []byte) {
		s := &script{portion: int(portion) + 1, end: io.EOF, in: in}
		w := &wire{port: s, framing: framing(how % 3), number: 7, packets: how&4 != 0}
		q := &request{unit: 0x11, pdu: []byte{3, 0, 0x6b, 0, 3}, want: 6}
		if how&8 != 0 {
			q = &request{unit: 0x11, pdu: []byte{6, 0, 1, 0, 3}, want: -1, echo: 5}
		}
		if how&16 != 0 {
			q = &request{unit: 0x11, pdu: []byte{23, 0, 1, 0, 1, 0, 1, 0, 1, 2, 0, 3}, want: 2, writes: true}
		}
		pdu, err := w.exchange(context.Background(), q, time.Second)
		if read := len(in) - len(s.in); read > maxStray+maxForeign*(maxPDU+mbapHeader)+len(w.in) {
			t.Fatalf("%d bytes read of a peer that sends without end", read)
		}
		if err == nil && !holds(w.framing, in, q, pdu) {
			t.Fatalf("took %x out of %x", pdu, in)
		}
		if e := exception(0); errors.As(err, &e) && w.framing == mbap && !bytes.Contains(in, []byte{0x11, q.pdu[0] | 0x80, byte(e)}) {
			t.Fatalf("took exception %d out of %x", e, in)
		}
	})
}

// holds reports whether the bytes hold a whole frame of this PDU.
func holds(f framing, in []byte, q *request, pdu []byte) bool {
	if !q.fits(pdu) {
		return false
	}
	body := append([]byte{q.unit}, pdu...)
	switch f {
	case mbap:
		return bytes.Contains(in, append([]byte{0, 8, 0, 0, 0, byte(len(body))}, body...))
	case rtu:
		return bytes.Contains(in, binary.LittleEndian.AppendUint16(body, slowCRC(body)))
	}
	sum := byte(0)
	for _, b := range body {
		sum += b
	}
	frame := ":" + hex.EncodeToString(append(body, -sum)) + "\r\n"
	return strings.Contains(strings.ToLower(string(in)), frame)
}

// FuzzOptions parses any tag options: mistakes have words, and what is taken decodes and encodes without harm.
func FuzzOptions(f *testing.F) {
	for _, seed := range []string{"int16 invalid=0x8000,1..5 min=1 max=2", "uint16 enum=0=off,1=on", "string length=4 code_page=latin-1 invalid=x", "uint16 flags=0=a,63=b", "ymdhms time_zone=Europe/Berlin", "float32 invalid=nan,-1..1", "uint32 write_function=23", "uint16 write_function=6 read_back=true", "%%!"} {
		f.Add(seed, []byte{0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	}
	f.Fuzz(func(t *testing.T, line string, data []byte) {
		if strings.Contains(line, "/") && !strings.Contains(line, "Europe/Berlin") || len(strings.Fields(line)) == 0 {
			return // time zones are read from files
		}
		fuzzOptions(t, line, data)
	})
}

func fuzzOptions(t *testing.T, line string, data []byte) {
	tag := tagOf("holding:0 " + line)
	r := &reporter{}
	u := &unit{settings: settings{maxRegisters: 125, zone: time.UTC}}
	one, ok := parseField(&tag, &u.settings, r)
	if !ok {
		if r.err() == nil || strings.Contains(r.err().Error(), "%!") && !strings.Contains(line, "%!") {
			t.Fatalf("%q: a mistake without right words: %v", line, r.err())
		}
		return
	}
	g := newGroup([]field{one}, u)
	words := make([]byte, 250)
	copy(words, data)
	out := make([]telemetry.Reading, 1)
	g.decode(g.spans[0].blocks[0], words, 1, out)
	if out[0].Tag != 0 || out[0].Time != 1 || (out[0].Reason == "") != (out[0].Quality == 0) {
		t.Fatalf("%q: %+v", line, out[0])
	}
	if !one.partial() {
		_, _ = one.encode(out[0].Value)
	}
}
