package modbus

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// mistakes makes a driver and returns the message of each of its mistakes, with where it is.
func mistakes(t *testing.T, url string, devices ...drivers.Device) []string {
	t.Helper()
	_, err := Protocol().New(drivers.Connection{URL: url, Devices: devices})
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%T is not joined errors", err)
	}
	var list []string
	for _, err := range joined.Unwrap() {
		var e *drivers.ConfigError
		if !errors.As(err, &e) {
			t.Fatalf("%v is no ConfigError", err)
		}
		list = append(list, fmt.Sprintf("%d/%d/%d %s: %s", e.Device, e.Group, e.Tag, e.Field, e))
	}
	return list
}

func TestTagMistakes(t *testing.T) {
	for _, c := range []tagCase{
		{"hr:1", "", "", `address: address "hr:1": there is no table "hr"; did you mean holding:1?`},
		{"coil:1", "uint16", "", `type: type "uint16": coil:1 is a single bit; leave the type out`},
		{"discrete:1", "float32", "", `type: type "float32": discrete:1 is a single bit; leave the type out`},
		{"holding:1.3", "uint16", "", `type: type "uint16": holding:1.3 is a single bit; leave the type out, or read the whole register with holding:1`},
		{"holding:1", "bool", "", `type: type "bool": holding:1 is a register of 16 bits; say which bit: holding:1.0 is the least significant`},
		{"holding:1", "float", "", `type: type "float": there is no such type; did you mean float32?`},
		{"holding:1", "Float32", "", `type: type "Float32": there is no such type; did you mean float32?`},
		{"holding:1", "dword", "", `type: type "dword": there is no such type; did you mean uint32?`},
		{"holding:1", "u8", "", `type: type "u8": there is no such type; did you mean uint8?`},
		{"holding:1.0-3", "uint8", "", `type: type "uint8": holding:1.0-3 is some bits of a register; leave the type out`},
		{"holding:1", "bits", "", `type: type "bits": holding:1 does not say which bits; write holding:1.0-3 for the lowest four`},
		{"holding:1", "uint8", "byte=upper", `byte: byte "upper" of the type uint8; use high or low, for int8 and uint8`},
		{"holding:1", "uint16", "invalid=0x12345", `invalid: invalid "0x12345": "0x12345" is not a value of the type uint16; write it like 0x8000, 9999, 100..200, nan`},
		{"holding:1", "uint16", "invalid=nan", `invalid: invalid "nan": "nan" is not a value of the type uint16; write it like 0x8000, 9999, 100..200, nan`},
		{"holding:1", "uint16", "invalid=200..100", `invalid: invalid "200..100": "200..100" runs backwards, which no value is in; write the least value first, such as 100..200`},
		{"holding:1", "float32", "invalid=5..1", `invalid: invalid "5..1": "5..1" runs backwards, which no value is in; write the least value first, such as 1..5`},
		{"holding:1", "uint16", "invalid=70000..80000", `invalid: invalid "70000..80000": "70000..80000" is not a value of the type uint16; its values are 0 to 65535`},
		{"holding:1", "uint16", "invalid=1,99999", `invalid: invalid "1,99999": "99999" is not a value of the type uint16; its values are 0 to 65535`},
		{"holding:1", "int16", "invalid=40000", `invalid: invalid "40000": "40000" is not a value of the type int16; its values are -32768 to 32767`},
		{"holding:1", "int48", "invalid=200000000000000", `invalid: invalid "200000000000000": "200000000000000" is not a value of the type int48; its values are -140737488355328 to 140737488355327`},
		{"holding:1.0-3", "", "invalid=16", `invalid: invalid "16": "16" is not a value of the type bits; its values are 0 to 15`},
		{"holding:1", "bcd16", "invalid=10000", `invalid: invalid "10000": "10000" is not a value of the type bcd16; its values are 0 to 9999`},
		{"holding:1", "float16", "invalid=70000", `invalid: invalid "70000": "70000" is not a value of the type float16; write it like 0x8000, 9999, 100..200, nan`},
		{"holding:1", "float32", "invalid=1e39", `invalid: invalid "1e39": "1e39" is not a value of the type float32; write it like 0x8000, 9999, 100..200, nan`},
		{"holding:1", "uint16", "enum=0=off,70000=on", `enum: enum: the type uint16 has no value 70000; its values are 0 to 65535`},
		{"holding:1", "uint64", "enum=-1=on", `enum: enum: the type uint64 has no value -1; its values are 0 to 18446744073709551615`},
		{"holding:1.0-3", "", "enum=16=on", `enum: enum: the type bits has no value 16; its values are 0 to 15`},
		{"coil:1", "", "enum=2=on", `enum: enum: the type bool has no value 2; its values are 0 to 1`},
		{"holding:1", "uint16", "min=5 max=4", `min: min 5 is over max 4; change one of them`},
		{"holding:1", "uint16", "enum=0", `enum: enum "0": "0" is not a number and its text; write it like 0=off, 1=on`},
		{"holding:1", "float32", "enum=0=off", `enum: enum of a tag that is float32, scaled or has both enum and flags; use one of them, for whole numbers that are not scaled`},
		{"holding:1", "uint16", "flags=64=x", `flags: flags: the type uint16 has no bit 64; its bits are 0 to 15, 0 is the least significant`},
		{"holding:1", "ymdhms", "time_zone=Mars", `time_zone: time_zone "Mars": there is no such time zone; use a name like Europe/Berlin; the default is UTC`},
		{"holding:1", "string", "length=4 code_page=ebcdic", `code_page: code_page "ebcdic": there is no such code page here; use auto, utf-8, latin-1, windows-1252`},
		{"holding:1", "bcd", "", `type: type "bcd": there is no such type; did you mean bcd16?`},
		{"holding:1", "", "order=ABCD", `order: order "ABCD": the type uint16 has no byte order; leave the order out; it is for values of two or four registers`},
		{"holding:1", "int16", "order=CDAB", `order: order "CDAB": the type int16 has no byte order; leave the order out; it is for values of two or four registers`},
		{"coil:1", "", "order=ABCD", `order: order "ABCD": the type bool has no byte order; leave the order out; it is for values of two or four registers`},
		{"holding:1", "float32", "order=little", `order: order "little": there is no such byte order; did you mean DCBA?`},
		{"holding:1", "float32", "order=cdab", `order: order "cdab": there is no such byte order; did you mean CDAB?`},
		{"holding:1", "float32", "order=ACBD", `order: order "ACBD": there is no such byte order; use ABCD (big-endian), BADC, CDAB or DCBA (little-endian)`},
		{"holding:1", "string", "", `length: a string needs a length; give its length in bytes, 1 to 250`},
		{"holding:1", "string", "length=0", `length: length "0": it is not a number of bytes from 1 to 250; two bytes are one register`},
		{"holding:1", "string", "length=251", `length: length "251": it is not a number of bytes from 1 to 250; two bytes are one register`},
		{"holding:1", "string", "length=8 order=CDAB", `order: order "CDAB": a string has no register order; use ABCD (first character in the high byte) or BADC (in the low byte)`},
		{"holding:1", "uint32", "length=4", `length: length "4": the type uint32 has no length; leave it out; it is for strings`},
		{"holding:65535", "float32", "", `address: address "holding:65535": the float32 there ends at register 65536; the last register is 65535`},
		{"465534", "float64", "", `address: address "465534": the float64 there ends at register 65536; the last register is 65535`},
		{"holding:65535", "string", "length=3", `address: address "holding:65535": the string there ends at register 65536; the last register is 65535`},
		{"holding:1", "string", "length=42", `address: address "holding:1": the string there takes 21 registers in one request; max_registers of the device is 20`},
		{"holding:65535", "", "", ""},
		{"holding:65534", "float32", "order=DCBA", ""},
		{"input:1", "string", "length=40 order=BADC", ""},
		{"holding:1.0", "bool", "", ""},
		{" holding:1 ", "", "", ""},
	} {
		c.judge(t)
	}
}

// tagCase is a tag and what is said of it, "" for nothing.
type tagCase struct{ address, typ, options, want string }

func (c *tagCase) judge(t *testing.T) {
	t.Helper()
	tag := telemetry.Tag{Address: c.address, Type: c.typ, Options: options(c.options)}
	dev := drivers.Device{Timeout: time.Second, Options: options("max_registers=20"), Groups: []drivers.Group{{Tags: []telemetry.Tag{tag}}}}
	want := []string{"0/0/0 " + c.want}
	if c.want == "" {
		want = nil
	}
	if got := mistakes(t, "tcp://h", dev); !slices.Equal(got, want) {
		t.Errorf("%q %q %q:\n got %q\nwant %q", c.address, c.typ, c.options, got, want)
	}
}

// TestKeysOfOtherTypes: what means nothing for the tag's type, or can never be, is a mistake.
func TestKeysOfOtherTypes(t *testing.T) {
	for _, c := range []tagCase{
		{"holding:1", "uint16", "enum=0=a,0x0=b", `enum: enum "0=a,0x0=b": 0 has two texts, "a" and "b"; delete one of them`},
		{"holding:1", "uint16", "flags=3=a,3=b", `flags: flags "3=a,3=b": 3 has two texts, "a" and "b"; delete one of them`},
		{"holding:1", "uint16", "flags=16=a", `flags: flags: the type uint16 has no bit 16; its bits are 0 to 15, 0 is the least significant`},
		{"holding:1.0-3", "", "flags=4=a", `flags: flags: the type bits has no bit 4; its bits are 0 to 3, 0 is the least significant`},
		{"holding:1", "int8", "flags=8=a", `flags: flags: the type int8 has no bit 8; its bits are 0 to 7, 0 is the least significant`},
		{"holding:1", "uint16", "enum=0=a min=1", `min: min "1" of a tag with enum: its values are texts; delete it`},
		{"holding:1", "uint16", "flags=0=a max=1", `max: max "1" of a tag with flags: its values are texts; delete it`},
		{"holding:1", "uint16", "code_page=auto", `code_page: code_page "auto" of the type uint16; leave it out, it is for strings`},
		{"holding:1", "unix32", "code_page=auto", `code_page: code_page "auto" of the type unix32; leave it out, it is for strings`},
		{"holding:1", "uint32", "time_zone=UTC", `time_zone: time_zone "UTC" of the type uint32; leave it out, it is for date-times`},
		{"input:1", "", "read_back=true", `read_back: read_back of input:1: it can only be read; leave it out`},
		{"discrete:1", "", "read_back=true", `read_back: read_back of discrete:1: it can only be read; leave it out`},
		{"holding:1", "", "write_function=4", `write_function: write_function "4": it does not write to holding:1; use 6, 16 or 23 for registers, 5 or 15 for a coil, or leave it out`},
		{"holding:1", "", "write_function=22", `write_function: write_function "22": it does not write to holding:1; use 6, 16 or 23 for registers, 5 or 15 for a coil, or leave it out`},
		{"coil:1", "", "write_function=23", `write_function: write_function "23": it does not write to coil:1; use 6, 16 or 23 for registers, 5 or 15 for a coil, or leave it out`},
		{"holding:1", "", "write_function=0", `write_function: write_function "0": it is not the code of a function; use 6, 16 or 23 for registers, 5 or 15 for a coil, or leave it out`},
		{"holding:1", "", "write_function=0x17", `write_function: write_function "0x17": it is not the code of a function; use 6, 16 or 23 for registers, 5 or 15 for a coil, or leave it out`},
		{"holding:1", "", "write_function=279", `write_function: write_function "279": it is not the code of a function; use 6, 16 or 23 for registers, 5 or 15 for a coil, or leave it out`},
		{"input:1", "", "write_function=16", `write_function: write_function "16": input:1 can only be read; leave it out`},
		{"holding:1", "uint32", "write_function=6", `write_function: write_function "6": it writes one register, and the uint32 has 2; use 16 or 23`},
		{"holding:1.3", "", "write_function=23", `write_function: write_function "23": a part of a register is written with function 22, or by reading and writing the register; leave it out`},
		{"holding:1", "uint8", "write_function=6", `write_function: write_function "6": a part of a register is written with function 22, or by reading and writing the register; leave it out`},
		{"holding:1", "float64", "write_function=23 read_back=true", ""},
		{"coil:1", "", "write_function=15", ""},
		{"holding:1", "uint16", "flags=15=a", ""},
		{"holding:1", "uint64", "flags=63=a", ""},
		{"holding:1", "ymdhms", "time_zone=Europe/Berlin", ""},
	} {
		c.judge(t)
	}
}

// options reads "a=1 b=2".
func options(text string) map[string]string {
	o := map[string]string{}
	for _, f := range strings.Fields(text) {
		k, v, _ := strings.Cut(f, "=")
		o[k] = v
	}
	return o
}

func TestDeviceMistakes(t *testing.T) {
	const use = "use tcp://host or tcp://host:port (default port 502)"
	for _, c := range []struct{ url, options, want string }{
		{"tcp://plc", "unit=256", `unit: unit "256": it is not a number from 0 to 255; the default is 1`},
		{"tcp://plc", "unit=one", `unit: unit "one": it is not a number from 0 to 255; the default is 1`},
		{"tcp://plc", "max_registers=126", `max_registers: max_registers "126": it is not a number from 1 to 125; the default is 125`},
		{"tcp://plc", "max_registers=0", `max_registers: max_registers "0": it is not a number from 1 to 125; the default is 125`},
		{"tcp://plc", "max_gap=-1", `max_gap: max_gap "-1": it is not a number from 0 to 124; the default is 50`},
		{"tcp://plc", "order=BIG", `order: order "BIG": there is no such byte order; did you mean ABCD?`},
		{"plc:502", "", `url: url "plc:502": it is not the address of a Modbus device; ` + use},
		{"", "", `url: url "": it is not the address of a Modbus device; ` + use},
		{"tcp://", "", `url: url "tcp://": it is not the address of a Modbus device; ` + use},
		{"tcp://:502", "", `url: url "tcp://:502": the host or the port is wrong; ` + use},
		{"tcp://192.168.1.300:502", "", `url: url "tcp://192.168.1.300:502": "192.168.1.300" is no address and can be no name; ` + drivers.HostMend},
		{"tcp-listen://192.168.1:502", "", `url: url "tcp-listen://192.168.1:502": "192.168.1" is no address and can be no name; ` + drivers.HostMend},
		{"tcp://plc:0", "", `url: url "tcp://plc:0": the host or the port is wrong; ` + use},
		{"tcp://plc:70000", "", `url: url "tcp://plc:70000": the host or the port is wrong; ` + use},
		{"tcp://plc:502/1", "", `url: url "tcp://plc:502/1": only a host and a port belong there; ` + use},
		{"tcp://me:secret@plc", "", `url: url "tcp://me:secret@plc": only a host and a port belong there; ` + use},
		{"rtu:///", "", `url: url "rtu:///": it names no serial device; ` + useSerial},
		{"rtu://ttyUSB0", "", `url: url "rtu://ttyUSB0": it names no serial device; ` + useSerial},
		{"rtu:///dev/ttyUSB0?baud=fast", "", `url: url "rtu:///dev/ttyUSB0?baud=fast": baud=fast is not a setting of a serial line; use baud (300 to 4000000), parity (none, odd, even), data (7, 8) and stop (1, 2)`},
		{"rtu:///dev/ttyUSB0?speed=9600", "", `url: url "rtu:///dev/ttyUSB0?speed=9600": speed=9600 is not a setting of a serial line; use baud (300 to 4000000), parity (none, odd, even), data (7, 8) and stop (1, 2)`},
		{"http://plc", "", `url: url "http://plc": there is no transport "http"; ` + useScheme},
		{"tcp://plc", "retries=6", `retries: retries "6": it is not a number from 0 to 5; the default is 1`},
		{"tcp://plc", "accept_unit=256", `accept_unit: accept_unit "256": it is neither any nor a number from 0 to 255; leave it out to take only right answers`},
		{"tcp://plc", "pause_after_connect=1", `pause_after_connect: pause_after_connect "1": it is not a time from 0 to 30s; write it like 100ms; without it, what the device needs is learned`},
		{"tcp://plc", "close_after_poll=yes", `close_after_poll: close_after_poll "yes": it is neither true nor false; the default is false`},
		{"tcp://plc", "ca_file=x", `url: ca_file, cert_file, key_file and server_name need a tcp+tls url; use tcp+tls://host, or leave them out`},
		{"tcp+tls://plc", "cert_file=x", `cert_file: a client certificate needs both cert_file and key_file; give both or none`},
		{"tcp://plc", "forbidden=holding:9-5", `forbidden: forbidden "holding:9-5": it does not say which registers; write it like holding:40-49`},
		{"tcp://plc", "invalid=uint16:99999", `invalid: invalid "uint16:99999": "99999" is not a value of the type uint16; its values are 0 to 65535`},
		{"tcp://plc", "invalid=float32:5..1", `invalid: invalid "float32:5..1": "5..1" runs backwards, which no value is in; write the least value first, such as 1..5`},
		{"tcp://plc", "invalid=0x8000", `invalid: invalid "0x8000": it does not say of which type; write it like int16:0x8000, uint16:0xffff, float32:nan, or sunspec`},
		{"rtu:///dev/ttyUSB0?baud=9600&parity=none&stop=2", "pause_between_requests=0 accept_transaction_id=any invalid=sunspec", ""},
		{"tcp-listen://:1502", "registration=gw-7 heartbeat_packet=0xfe", ""},
		{"rtu-listen://10.0.0.1", "", ""},
		{"tcp-listen://", "", ""},
		{"tcp-listen://:1502", "registration=0x6", `registration: registration "0x6": after 0x come pairs of hex digits; write it like 0x67772D37, or as a text`},
		{"tcp-listen://:1502", "registration=0x", `registration: registration "0x": it has 0 bytes; use 1 to 64 bytes, not only a line's end`},
		{"tcp-listen://:1502", "heartbeat_packet=0x01020000", `heartbeat_packet: heartbeat_packet "0x01020000": it begins like a frame of Modbus TCP; leave it out: a frame that answers nothing is ignored`},
		{"tcp-listen://:1502", "close_after_poll=true", `close_after_poll: close_after_poll of a device that calls: nobody but the device can make the connection again; leave it out`},
		{"tcp-listen://:1502", "allow_from=10.1.0.0/16,fd00::1", ""},
		{"tcp-listen://:1502", "allow_from=10.1.2.3/16", `allow_from: allow_from: "10.1.2.3/16" has more than its network: that is 10.1.0.0/16; write addresses and networks, such as 10.1.0.0/16, 192.168.1.7`},
		{"tcp://plc", "allow_from=10.1.0.0/16", `url: registration, heartbeat_packet and allow_from are of devices that call; use tcp-listen://:1502 or rtu-listen://:1502, or leave them out`},
		{"tcp://plc", "registration=gw-7", `url: registration, heartbeat_packet and allow_from are of devices that call; use tcp-listen://:1502 or rtu-listen://:1502, or leave them out`},
		{"asciioverudp://plc:4001", "pause_after_connect=1s500ms", ""},
		{"tcp://plc", "unit=0 max_registers=1 max_gap=0 order=DCBA", ""},
		{"tcp://[fe80::1]:1502", "unit=255", ""},
	} {
		var want []string
		if c.want != "" {
			want = []string{"0/-1/-1 " + c.want}
		}
		dev := drivers.Device{Timeout: time.Second, Options: options(c.options)}
		if got := mistakes(t, c.url, dev); !slices.Equal(got, want) {
			t.Errorf("%q %q:\n got %q\nwant %q", c.url, c.options, got, want)
		}
	}
}

func TestDefaultPort(t *testing.T) {
	for url, want := range map[string]string{"tcp://plc": "plc:502", "tcp://10.0.0.1:1502/": "10.0.0.1:1502", "tcp://[::1]": "[::1]:502"} {
		if got, m := parseURL(url); got.address != want {
			t.Errorf("%q: %q, %v; want %q", url, got.address, m, want)
		}
	}
}

// TestPlan holds the requests that a config makes, in the words that `check` shows.
func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name, options string
		tags          []string
		want          []string
	}{
		{"neighbours", "", []string{"holding:101", "holding:100"}, []string{"read holding 100-101 (2 registers, 2 tags)"}},
		{"one", "", []string{"coil:7"}, []string{"read coil 7 (1 bit, 1 tag)"}},
		{"tables apart", "", []string{"holding:1", "input:1", "coil:1", "discrete:1"},
			[]string{"read coil 1 (1 bit, 1 tag)", "read discrete 1 (1 bit, 1 tag)", "read input 1 (1 register, 1 tag)", "read holding 1 (1 register, 1 tag)"}},
		{"across a gap of 50", "", []string{"holding:0", "holding:51"}, []string{"read holding 0-51 (52 registers, 2 tags)"}},
		{"not of 51", "", []string{"holding:0", "holding:52"}, []string{"read holding 0 (1 register, 1 tag)", "read holding 52 (1 register, 1 tag)"}},
		{"no gap", "max_gap=0", []string{"holding:0", "holding:1", "holding:3"}, []string{"read holding 0-1 (2 registers, 2 tags)", "read holding 3 (1 register, 1 tag)"}},
		{"gap of bits", "max_gap=1", []string{"coil:0", "coil:17", "coil:35"}, []string{"read coil 0-17 (18 bits, 2 tags)", "read coil 35 (1 bit, 1 tag)"}},
		{"block limit", "max_registers=10", []string{"holding:0", "holding:8 float32", "holding:9 float32"},
			[]string{"read holding 0 (1 register, 1 tag)", "read holding 8-10 (3 registers, 2 tags)"}},
		{"forbidden", "forbidden=holding:5,input:7", []string{"holding:4", "holding:6", "input:6", "input:8"},
			[]string{"read input 6 (1 register, 1 tag)", "read input 8 (1 register, 1 tag)", "read holding 4 (1 register, 1 tag)", "read holding 6 (1 register, 1 tag)"}},
		{"values stay whole", "max_registers=4", []string{"holding:0", "holding:1 uint64"}, []string{"read holding 0 (1 register, 1 tag)", "read holding 1-4 (4 registers, 1 tag)"}},
		{"overlap", "", []string{"holding:0 uint64", "holding:1", "holding:1.3", "holding:2"}, []string{"read holding 0-3 (4 registers, 4 tags)"}},
		{"2000 bits", "", append(run("coil", 0, 2001), "coil:65535"), []string{"read coil 0-1999 (2000 bits, 2000 tags)", "read coil 2000 (1 bit, 1 tag)", "read coil 65535 (1 bit, 1 tag)"}},
		{"250 registers", "", run("holding", 65286, 250), []string{"read holding 65286-65410 (125 registers, 125 tags)", "read holding 65411-65535 (125 registers, 125 tags)"}},
	} {
		dev := device("tcp://h", 1, tags(c.tags...))
		for k, v := range options(c.options) {
			dev.Options[k] = v
		}
		d, err := newDriver(&drivers.Connection{URL: "tcp://h", Devices: []drivers.Device{dev}}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Plan(drivers.Ref{}); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}
