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
			[]string{`field "s": its characters are in one byte`, "1m became 30s", `field "swapped": byte order "BA" swaps`, "inputs: these keys were not translated: snmp", "inputs.modbus: these keys were not translated: busy_retries"}},
		{"benthos-umh", `input:
  modbus:
    controller: 'tcp://h:502'
    workarounds: {pauseAfterConnect: 500ms, timeBetweenRequests: 20ms, stringRegisterLocation: upper, oneRequestPerField: true}
    addresses: [{name: s, register: input, address: 20, type: STRING, length: 4}, {name: b, register: input, address: 20, type: INT8H, output: FLOAT64}]
`, []string{"b input:20 int8 high", "pause_after_connect 500ms", "pause_between_requests 20ms"},
			[]string{`"s": its characters`, "input.modbus.addresses: these keys were not translated: output", "input.modbus.workarounds: these keys were not translated: oneRequestPerField"}},
		{"neuron-csv", `group,interval,name,address,type,Gain
g,1000,s,1!400040.10D,STRING,2
g,1000,t,1!400040.20,STRING,
g,1000,b,1!400050.4,BYTES,
`, []string{"t holding:39 string length 20", "b holding:49 bytes length 4"}, []string{`"s": address "400040.10D" has a character in one byte`, "put its url", "columns were not translated: Gain"}},
		{"kepware-csv", `Tag Name,Address,Data Type,Scaling,Raw Low,Raw High,Scaled Low,Scaled High,Clamp Low,Clamp High,Negate Value
a,400300 [2],DWord Array,,,,,,,,
n,400301[2][3],Word Array,,,,,,,,
b,400310,LBCD,,,,,,,,
c,400320,Word,Linear,0,100,0,10,1,1,1
d,400320,Word,Linear,0,100,0,10,1,0,0
`, []string{"a[0] holding:299 uint32", "a[1] holding:301 uint32", "b holding:309 bcd32", "c holding:319 uint16 *-0.1-0 clamp -10..0", "d holding:319 uint16 *0.1+0"},
			[]string{"put its url", "first word low", "the array became 2 tags", `"400301[2][3]" is not`, "no longer clamped"}},
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
		}
		if len(r.Problems) != len(c.remarks) {
			t.Errorf("%s: %d remarks, want %d", c.format, len(r.Problems), len(c.remarks))
		}
	}
}
