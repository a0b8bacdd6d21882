package wire

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

func reverseHello(server, endpoint string) []byte {
	b := append([]byte("RHEF"), 0, 0, 0, 0)
	b = AppendBytes(AppendBytes(b, []byte(server)), []byte(endpoint))
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	return b
}

func TestReverseHello(t *testing.T) {
	long := strings.Repeat("x", maxReverseField)
	for in, want := range map[string]string{
		string(reverseHello("urn:a", "opc.tcp://h")) + "more":   "",
		string(reverseHello(long, long)):                        "",
		string(reverseHello(long+"x", "")):                      "in more than 4096 bytes",
		string(reverseHello("", long+"x")):                      "in more than 4096 bytes",
		string(reverseHello("\xff", "")):                        "not in text",
		string(reverseHello(long, long+"x")):                    "of 8209 bytes",
		"HELF\x20\x00\x00\x00":                                  "the caller is a client",
		"GET / HT":                                              `the caller sent "GET / HT"`,
		"RHEC\x20\x00\x00\x00":                                  "not a ReverseHello",
		"RHEF\x0f\x00\x00\x00":                                  "of 15 bytes",
		"RHEF\xff\xff\xff\xff":                                  "of 4294967295 bytes",
		"RHEF\x10\x00\x00\x00\x01\x00\x00\x00aaaa":              "malformed",
		"RHEF\x11\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00a": "malformed",
		"RHEF\x10\x00\x00\x00\xfe\xff\xff\xff\x00\x00\x00\x00":  "malformed",
		"RHEF\x10\x00\x00\x00\x00\x00":                          "EOF",
		"":                                                      "EOF",
	} {
		r := bytes.NewReader([]byte(in))
		server, endpoint, err := ReverseHello(r)
		switch {
		case want == "" && (err != nil || !strings.HasPrefix(in, string(reverseHello(server, endpoint)))):
			t.Errorf("%.40q: %v, %.40q %.40q", in, err, server, endpoint)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%.40q: %v, want %s", in, err, want)
		case want == "" && strings.HasSuffix(in, "more") && r.Len() != 4:
			t.Errorf("%.40q: %d bytes are left, want 4", in, r.Len())
		}
	}
}

// FuzzReverseHello: what is taken is within the bounds, and was sent so.
func FuzzReverseHello(f *testing.F) {
	f.Add(reverseHello("urn:a", "opc.tcp://h"))
	f.Add([]byte("RHEF\x10\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte("RHEF\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		server, endpoint, err := ReverseHello(r)
		if read := len(b) - r.Len(); read > maxReverseHello {
			t.Fatalf("%d bytes were read", read)
		}
		if err != nil {
			if err.Error() == "" || len(err.Error()) > 200 {
				t.Fatalf("an error in %d bytes", len(err.Error()))
			}
			return
		}
		if len(server) > maxReverseField || len(endpoint) > maxReverseField || server != "" && endpoint != "" && !bytes.HasPrefix(b, reverseHello(server, endpoint)) {
			t.Fatalf("% x is from %q at %q", b, server, endpoint)
		}
	})
}
