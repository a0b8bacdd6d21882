package importer

import (
	"fmt"
	"strings"
	"testing"
)

// TestNothingIsDroppedInSilence holds what stands in a file against the tags and the remarks.
func TestNothingIsDroppedInSilence(t *testing.T) {
	for _, c := range []struct {
		format, text  string
		tags, remarks []string // all of the tags; a part of each remark
	}{
		{"telegraf", `[[inputs.modbus]]
  name = "d"
  slave_id = 1
  controller = "tcp://h:502"
  busy_retries = 3
  holding_registers = [ {name="s", byte_order="AB", data_type="STRING", address=[200,201]}, {name="h", byte_order="AB", data_type="FLOAT16", address=[1]},
    {name="l", byte_order="AB", data_type="INT8L", address=[2]}, {name="u", byte_order="AB", data_type="UINT8H", address=[2]}, {name="x", byte_order="BA", data_type="UINT8H", address=[2]},
    {name="swapped", byte_order="BA", data_type="UINT16", address=[2]}, {name="bit", byte_order="BA", data_type="BIT", bit=0, address=[2]} ]
  [inputs.modbus.workarounds]
    string_register_location = "lower"
    pause_between_requests = "100ms"
    pause_after_connect = "1m"
    close_connection_after_gather = true
[[inputs.snmp]]
`, []string{"h holding:1 float16", "l holding:2 int8", "u holding:2 uint8 high", "x holding:2 uint8", "bit holding:2.8",
			"pause_after_connect 30s", "pause_between_requests 100ms", "close_after_poll true"},
			[]string{`field "s": left out: its characters are in one byte of each register only (string register location "lower"); write a tag of type uint8 for each`, "1m became 30s", `field "swapped": left out: byte order "BA" swaps`, "inputs: these keys were not translated: snmp", "inputs.modbus: these keys were not translated: busy_retries", "5 tags: no interval", "1 tag: true and false here"}},
		{"benthos-umh", `input:
  modbus:
    controller: 'tcp://h:502'
    workarounds: {pauseAfterConnect: 500ms, timeBetweenRequests: 20ms, stringRegisterLocation: upper, oneRequestPerField: true}
    addresses: [{name: s, register: input, address: 20, type: STRING, length: 4}, {name: b, register: input, address: 20, type: INT8H, output: FLOAT64}]
`, []string{"b input:20 int8 high", "pause_after_connect 500ms", "pause_between_requests 20ms"},
			[]string{"the unit id of the device", `"s": left out: its characters`, "input.modbus.addresses: these keys were not translated: output", "input.modbus.workarounds: these keys were not translated: oneRequestPerField", "1 tag: no interval"}},
		{"neuron-csv", `group,interval,name,address,type,Gain
g,1000,s,1!400040.10D,STRING,2
g,1000,t,1!400040.20,STRING,
g,1000,b,1!400050.4,BYTES,
`, []string{"t holding:39 string length 20", "b holding:49 bytes length 4"}, []string{`"s": left out: address "400040.10D" has a character in one byte of each register only; write a tag of type uint8 for each`, "its first register", "put its url", "columns were not translated: Gain", "2 tags: without an attribute"}},
		{"kepware-csv", `Tag Name,Address,Data Type,Scaling,Raw Low,Raw High,Scaled Low,Scaled High,Clamp Low,Clamp High,Negate Value
a,400300 [2],DWord Array,,,,,,,,
n,400301[2][3],Word Array,,,,,,,,
b,400310,LBCD,,,,,,,,
c,400320,Word,Linear,0,100,0,10,1,1,1
d,400320,Word,Linear,0,100,0,10,1,0,0
`, []string{"a[0] holding:299 uint32", "a[1] holding:301 uint32", "b holding:309 bcd32", "c holding:319 uint16 *-0.1-0 clamp -10..0", "d holding:319 uint16 *0.1+0"},
			[]string{"the unit id of the device", "put its url", "first word low", "the array became 2 tags", `"400301[2][3]" is not`, "not clamped", "5 tags: no interval"}},
	} {
		r, err := Import(c.format, []byte(c.text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range lines(r) {
			got = append(got, l[strings.LastIndex(l, "|")+1:])
		}
		for _, o := range r.Devices[0].Options {
			got = append(got, o[0]+" "+o[1])
		}
		if fmt.Sprint(got) != fmt.Sprint(c.tags) {
			t.Errorf("%s: %q, want %q", c.format, got, c.tags)
		}
		for i, p := range r.Problems {
			if !strings.Contains(p.String(), at(c.remarks, i)) {
				t.Errorf("%s: remark %q, want %q", c.format, p, at(c.remarks, i))
			}
			goodWords(t, p)
		}
		if len(r.Problems) != len(c.remarks) {
			t.Errorf("%s: %d remarks, want %d", c.format, len(r.Problems), len(c.remarks))
		}
	}
}

// TestControllers: the transmission modes of Telegraf and benthos-umh are schemes of the driver.
func TestControllers(t *testing.T) {
	for _, c := range []struct{ controller, mode, want string }{
		{"tcp://h:502", "", "tcp://h:502"},
		{"tcp://h:502", "RTUoverTCP", "rtuovertcp://h:502"},
		{"tcp://h:502", "ASCIIoverTCP", "asciiovertcp://h:502"},
		{"file:///dev/ttyUSB0", "RTU", "rtu:///dev/ttyUSB0?baud=19200&parity=even&stop=1&data=8"},
		{"file:///dev/ttyUSB0", "ASCII", "ascii:///dev/ttyUSB0?baud=19200&parity=even&stop=1&data=8"},
		{"/dev/ttyUSB0", "RTU", ""},
	} {
		if url, remark := controllerURL(c.controller, 19200, "E", 1, 0, c.mode); url != c.want || (url == "") != (len(remark) > 0) {
			t.Errorf("%s %s became %q, %s", c.controller, c.mode, url, remark)
		}
	}
}

// TestRemarks reads rows and keys that are wrong in ways that no file of testdata is, each to the remark it makes.
func TestRemarks(t *testing.T) {
	kepware := func(rows string) string { return "Tag Name,Address,Data Type,Scan Rate,Scaling\n" + rows }
	neuron := func(rows string) string { return "group,interval,name,address,type,decimal\n" + rows }
	for _, c := range []struct{ format, text, want string }{
		{"kepware-csv", kepware("a,99,Word,,"), `line 2, tag "a": left out: address "99" is not of the form 400101, 400101.3 or 400101.20H; write it by hand`},
		{"kepware-csv", kepware("a,400001,Date,,"), `data type "Date" has no counterpart; choose a type of drivers/modbus/README.md by hand`},
		{"kepware-csv", kepware("a,400001,Boolean,,"), `has no bit (such as 400101.3) or length`},
		{"kepware-csv", kepware("a,400001.16,Boolean,,"), `a bit is 0 to 15`},
		{"kepware-csv", kepware("a,00001.1,Boolean,,"), `has a bit, and a coil has none`},
		{"kepware-csv", kepware("a,400000,Word,,"), `is outside of its table`},
		{"kepware-csv", kepware("a,465536,DWord,,"), `its 2 registers from 65535 on end behind the last, 65535`},
		{"kepware-csv", kepware("a,400001,Word,fast,"), `scan rate "fast" is no number`},
		{"kepware-csv", kepware("a,400001,Word,,Linear"), `its scaling goes from one value to the same; set scale`},
		{"kepware-csv", kepware(",400001,Word,,"), `a tag needs a name of 1 to 255 bytes; name it by hand`},
		{"kepware-csv", kepware("a,400001,Word,,\na,400002,Word,,"), `its name is taken in group "every-1s"; it became "a_2"`},
		{"kepware-json", `{"project":{"channels":[{"common.ALLTYPES_NAME":"c","servermain.MULTIPLE_TYPES_DEVICE_DRIVER":"Simulator"}]}}`, `channel "c": left out: its driver is "Simulator"`},
		{"neuron-csv", neuron("g,1000,a,400001,UINT16,"), `does not begin with a unit id of 0 to 255, such as 1!`},
		{"neuron-csv", neuron("g,1000,a,1!400001#XY,UINT32,"), `the order #"XY" is not known; choose an order by hand`},
		{"neuron-csv", neuron("g,1000,a,1!400001,TIME,"), `type "TIME" has no counterpart; choose a type`},
		{"neuron-csv", neuron("g,1000,a,1!400001,BIT,"), `has no bit for a bool, such as 400001.4`},
		{"neuron-csv", neuron("g,1000,a,1!400001,UINT16,x"), `its decimal "x" is no number`},
		{"neuron-csv", neuron("g,often,a,1!400001,UINT16,"), `interval "often" is no number`},
		{"benthos-umh", "input: {modbus: {controller: 'tcp://h', addresses: [{name: a, type: UINT16}]}}", `it has no address; write it by hand`},
		{"benthos-umh", "input: {modbus: {controller: 'tcp://h', slaveID: 300, addresses: [{name: a, address: 1, type: UINT16}]}}", `unit id 300 is out of range; use 0 to 255`},
		{"benthos-umh", "input: {modbus: {controller: 'h', addresses: [{name: a, register: hold, address: 1, type: UINT16}]}}", `there is no register "hold"; use holding`},
		{"benthos-umh", "input: {modbus: {controller: 'h', timeout: 1, addresses: [{name: a, address: 1, type: UINT16}]}}", `controller "h" was not understood; put the device's url`},
		{"benthos-umh", "input: {modbus: {controller: 'h', timeout: 1, addresses: [{name: a, address: 1, type: UINT16}]}}", `duration "1" was not understood`},
	} {
		r, err := Import(c.format, []byte(c.text), Options{})
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		found := false
		for _, p := range r.Problems {
			goodWords(t, p)
			found = found || strings.Contains(p.String(), c.want)
		}
		if !found {
			t.Errorf("%s %q: %q, want %q", c.format, c.text, r.Problems, c.want)
		}
	}
}
