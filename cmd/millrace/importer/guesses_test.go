package importer

import (
	"fmt"
	"strings"
	"testing"
)

// kepwareProjectOf is a project of one device of a Modbus driver.
func kepwareProjectOf(driver, device string, tags ...string) string {
	return fmt.Sprintf(`{"project":{"channels":[{"common.ALLTYPES_NAME":"c","servermain.MULTIPLE_TYPES_DEVICE_DRIVER":%q,"devices":[{%s,"tags":[%s]}]}]}}`, driver, device, strings.Join(tags, ","))
}

func kepwareTagOf(name, address string, code int, more string) string {
	return fmt.Sprintf(`{"common.ALLTYPES_NAME":%q,"servermain.TAG_ADDRESS":%q,"servermain.TAG_DATA_TYPE":%d,"servermain.TAG_SCAN_RATE_MILLISECONDS":100%s}`, name, address, code, more)
}

const ethernet = `"common.ALLTYPES_NAME":"d","servermain.DEVICE_ID_STRING":"<10.0.0.1>.3"`

func kepwareRows(rows string) string {
	return "Tag Name,Address,Data Type,Client Access,Scan Rate,Scaling,Raw Low,Raw High,Scaled Low,Scaled High,Scaled Data Type\n" + rows
}

func neuronRows(rows string) string {
	return "group,interval,name,address,attribute,type,decimal,bias\n" + rows
}

func umhAddresses(address string) string {
	return "input: {modbus: {controller: 'tcp://h:502', slaveID: 1, addresses: [" + address + "]}}"
}

func telegrafFields(more, fields string) string {
	return "[[inputs.modbus]]\ncontroller = \"tcp://h:502\"\n" + more + "\n[[inputs.modbus.request]]\nslave_id = 1\nfields = [" + fields + "]\n"
}

func openRegisterOf(device, register string) string {
	return "version: 0.3.0\ndevice: {id: d, protocol: modbus_tcp" + device + "}\nregisters: {'1': {name: a, unit: '', " + register + "}}"
}

func kepwareDeviceOf(more string, tags ...string) string {
	return kepwareProjectOf("Modbus TCP/IP Ethernet", ethernet+more, tags...)
}

// guesses are files that do not say something, or not in a way that is carried over, and what is told of it.
var guesses = []struct {
	format, text, want string
	tags               int
}{
	{"kepware-csv", kepwareRows("a,400001,,RO,100"), `tag "a": its data type is empty, so Kepware's own for a register, Word, was taken (uint16); set type`, 1},
	{"kepware-csv", kepwareRows("a,400001,Default,RO,100"), `its data type is Default, so Kepware's own`, 1},
	{"kepware-csv", kepwareRows("a,400001,Word,WO,100"), `tag "a": left out: it can only be written (Client Access WO)`, 0},
	{"kepware-csv", kepwareRows("a,400001,Word,R/W,100\nb,400002,Word,RW,100"), `2 tags: writable there and only read here; name under writes`, 2},
	{"kepware-csv", kepwareRows("a,400001,Word,RO,"), `1 tag: no interval in the file, so 1s was taken; --interval`, 1},
	{"kepware-csv", kepwareRows("a,400001,Word,RO,1"), `1 tag: the interval of 1ms became 10ms; an interval is`, 1},
	{"kepware-csv", kepwareRows("a,400001,Word,RO,100,Linear,0,100,0,1,Word"), `1 tag: scaled to whole numbers there (Scaled Data Type Word), with decimals here`, 1},
	{"kepware-csv", kepwareRows("a,400001,Word,RO,100,Linear,0,x,0,1,Word"), `tag "a": Raw High "x" is no number, so values are raw; set scale`, 1},
	{"kepware-csv", kepwareRows("a,000001,Boolean,RO,100,Linear,0,100,0,1,Float"), `its scaling was left out, because a bit or a text has none`, 1},
	{"kepware-csv", kepwareRows("a,400001.8H,String,RO,100,Linear,0,100,0,1,Float"), `its scaling was left out, because a bit or a text has none`, 1},
	{"kepware-csv", kepwareRows("a,400001,Word,RO,100"), `the unit id of the device, so 1 was taken; give --unit`, 1},
	{"kepware-csv", kepwareRows("a,400001,Word,RO,100"), `the first register is 400001, the first bit .0; change`, 1},
	{"kepware-json", kepwareDeviceOf("", kepwareTagOf("a", "400001", -1, "")), `its data type is default, so Kepware's own`, 1},
	{"kepware-json", kepwareDeviceOf("", kepwareTagOf("a", "400001", 5, `,"servermain.TAG_READ_WRITE_ACCESS":1`)), `1 tag: writable there`, 1},
	{"kepware-json", kepwareDeviceOf("", kepwareTagOf("a", "400001", 5, `,"servermain.TAG_SCALING_TYPE":1,"servermain.TAG_SCALING_RAW_HIGH":10,"servermain.TAG_SCALING_SCALED_HIGH":1,"servermain.TAG_SCALING_SCALED_DATA_TYPE":4`)), `(Scaled Data Type short)`, 1},
	{"kepware-json", kepwareDeviceOf(`,"modbus_ethernet.DEVICE_MODBUS_BYTE_ORDER":false`, kepwareTagOf("a", "400001", 5, "")), `tag "a": left out: byte order "DCBA" swaps the bytes of its one register`, 0},
	{"kepware-json", kepwareDeviceOf(`,"modbus_ethernet.DEVICE_FIRST_DWORD_LOW":false`, kepwareTagOf("a", "400001", 9, "")), `tag "a": left out: "first word low" and "first dword low" of the device differ`, 0},
	{"kepware-json", kepwareDeviceOf(`,"modbus_ethernet.DEVICE_TREAT_LONGS_AS_DOUBLE_PRECISION_UNSIGNED_DECIMAL":true`, kepwareTagOf("a", "400001", 7, "")), `write it by hand, with type mod10k32`, 0},
	{"kepware-json", kepwareDeviceOf(`,"servermain.DEVICE_DATA_COLLECTION":false`, kepwareTagOf("a", "400001", 5, "")), `its data collection is off there, and here it is read`, 1},
	{"kepware-json", kepwareDeviceOf(`,"servermain.DEVICE_SIMULATED":true`, kepwareTagOf("a", "400001", 5, "")), `it is simulated there, and here it is read`, 1},
	{"kepware-json", kepwareDeviceOf(`,"servermain.DEVICE_SCAN_MODE":2,"servermain.DEVICE_SCAN_MODE_RATE_MS":500`, kepwareTagOf("a", "400001", 5, "")), `its scan mode is 2 with 500 ms`, 1},
	{"kepware-json", kepwareProjectOf("Modbus RTU Serial", `"servermain.DEVICE_ID_STRING":"3"`, kepwareTagOf("a", "400001", 5, "")), `it stands on a serial line (Modbus RTU Serial)`, 1},
	{"neuron-csv", neuronRows("g,100,a,1!400001,Write,UINT16"), `tag "a": left out: it can only be written (attribute Write)`, 0},
	{"neuron-csv", neuronRows("g,100,a,1!400001,2,UINT16"), `left out: it can only be written (attribute Write)`, 0},
	{"neuron-csv", neuronRows("g,100,a,1!400001,8,UINT16"), `left out: a static tag`, 0},
	{"neuron-csv", neuronRows("g,100,a,1!400001,\"Read, Write\",UINT16"), `1 tag: writable there`, 1},
	{"neuron-csv", neuronRows("g,100,a,1!400001,Read Subscribe,UINT16"), `1 tag: sent there when changed (Subscribe)`, 1},
	{"neuron-csv", neuronRows("g,100,a,1!400001,,UINT16"), `1 tag: without an attribute`, 1},
	{"neuron-csv", neuronRows("g,100,a,1!400001,Lesen,UINT16"), `left out: its attribute "Lesen" is none of Read`, 0},
	{"neuron-csv", neuronRows("g,100,a,1!400001,Read,UINT16"), `what the node calls its first register, so Neuron's default was taken, 1`, 1},
	{"neuron-csv", neuronRows("g,100,a,1!400001#LL,Read,UINT16"), `left out: the order #LL swaps the bytes of its one register`, 0},
	{"neuron-csv", neuronRows("g,100,a,1!400001.3,Read,BIT,0.1"), `its scaling was left out`, 1},
	{"neuron-csv", neuronRows("g,100,a,1!400001,Read,UINT16,1,x"), `its bias "x" is no number`, 0},
	{"benthos-umh", umhAddresses("{name: a, address: 1, type: UINT16, bit: 3}"), `"a": left out: it has bit 3 and type UINT16, and only type BIT has a bit`, 0},
	{"benthos-umh", umhAddresses("{name: a, address: 1, type: BIT}"), `"a": left out: type BIT needs a bit`, 0},
	{"benthos-umh", umhAddresses("{name: a, address: 1, type: BIT, bit: -1}"), `left out: a register has no bit -1`, 0},
	{"benthos-umh", umhAddresses("{name: a, address: 1, register: coil, bit: 3}"), `left out: it has bit 3, and a coil or discrete input has none`, 0},
	{"benthos-umh", umhAddresses("{name: a, address: 1, register: coil}"), `1 tag: true and false here, 1 and 0 there`, 1},
	{"benthos-umh", umhAddresses("{name: a, address: 1, type: STRING, length: 2, scale: 0.1}"), `its scaling was left out`, 1},
	{"benthos-umh", umhAddresses("{name: a, address: 1, type: UINT16, output: INT64}"), `these keys were not translated: output`, 1},
	{"benthos-umh", "input: {modbus: {controller: 'tcp://h:502', addresses: [{name: a, address: 1, type: UINT16}]}}", `the unit id of the device, so 1 was taken`, 1},
	{"benthos-umh", "input: {modbus: {controller: 'tcp://h:502', transmissionMode: fast, slaveID: 1, addresses: [{name: a, address: 1, type: UINT16}]}}", `transmission mode "FAST" is not known`, 1},
	{"telegraf", telegrafFields("", `{name="a", address=1}`), `field "a": left out: it has no type; write it by hand`, 0},
	{"telegraf", telegrafFields("", `{name="a", address=1, type="UINT16", bit=3}`), `left out: it has bit 3 and type UINT16`, 0},
	{"telegraf", telegrafFields("", `{name="a", address=70000, type="UINT16"}`), `its address 70000 is out of range; a register is 0 to 65535`, 0},
	{"telegraf", "[[inputs.modbus]]\ncontroller=\"tcp://h:502\"\ncoils=[{name=\"a\", address=[1]}]\n", `it has no slave_id, so 0 was taken, as Telegraf does`, 1},
	{"telegraf", "[[inputs.modbus]]\ncontroller=\"file:///dev/ttyS0\"\nslave_id=1\ncoils=[{name=\"a\", address=[1]}]\n", `it has no baud_rate, or no parity of N, E or O ("")`, 1},
	{"telegraf", telegrafFields("", `{name="a", address=1, type="UINT16"}`), `1 tag: no interval in the file`, 1},
	{"openmodbus", openRegisterOf("", "type: uint16, register_type: holding, write_access: true"), `1 tag: writable there`, 1},
	{"openmodbus", openRegisterOf("", "type: uint16, register_type: holding, byte_order: BYTE_SWAP"), `left out: byte_order "BYTE_SWAP" swaps the bytes of its one register`, 0},
	{"openmodbus", openRegisterOf("", "type: uint32, register_type: holding"), `1 tag: no byte order, for itself or for the device, so ABCD was taken`, 1},
	{"openmodbus", openRegisterOf("", "type: int8, register_type: holding"), `1 tag: one byte of a register, and the form does not say which`, 1},
	{"openmodbus", openRegisterOf("", "type: bool, register_type: holding"), `it is a bool in a register, and the form does not say which bit`, 1},
	{"openmodbus", openRegisterOf("", "type: uint16"), `1 tag: no register_type, so holding was taken`, 1},
	{"openmodbus", strings.Replace(openRegisterOf("", "type: uint16"), "modbus_tcp", "modbus_rtu", 1), `it stands on a serial line (modbus_rtu)`, 1},
}

// TestNoGuessInSilence: where a file does not say something that changes values, types, access or times, or says it in a
// way that is not carried over, that is told; and what cannot be right is left out.
func TestNoGuessInSilence(t *testing.T) {
	for _, c := range guesses {
		r, err := Import(c.format, []byte(c.text), Options{})
		if err != nil || r.Tags != c.tags {
			t.Errorf("%s: %v, %+v, want %d tags", c.text, err, r, c.tags)
			continue
		}
		said(t, r, c.text, c.want)
	}
}

// TestKepwareManners: how a device counts, orders and is reached becomes addresses, orders and the url.
func TestKepwareManners(t *testing.T) {
	bit := kepwareTagOf("a", "400002.3", 1, "")
	for _, c := range []struct{ driver, more, tag, want string }{
		{"Modbus TCP/IP Ethernet", "", bit, "d tcp://10.0.0.1:502 3 CDAB|every-100ms 100ms|a holding:1.3"},
		{"Modbus TCP/IP Ethernet", `,"modbus_ethernet.DEVICE_ZERO_BASED_ADDRESSING":false`, bit, "d tcp://10.0.0.1:502 3 CDAB|every-100ms 100ms|a holding:2.3"},
		{"Modbus TCP/IP Ethernet", `,"modbus_ethernet.DEVICE_ZERO_BASED_BIT_ADDRESSING":false`, bit, "d tcp://10.0.0.1:502 3 CDAB|every-100ms 100ms|a holding:1.2"},
		{"Modbus TCP/IP Ethernet", `,"modbus_ethernet.DEVICE_MODICON_BIT_ORDER":true`, bit, "d tcp://10.0.0.1:502 3 CDAB|every-100ms 100ms|a holding:1.12"},
		{"Modbus TCP/IP Ethernet", `,"modbus_ethernet.DEVICE_MODBUS_BYTE_ORDER":false`, bit, "d tcp://10.0.0.1:502 3 DCBA|every-100ms 100ms|a holding:1.11"},
		{"Modbus TCP/IP Ethernet", `,"modbus_ethernet.DEVICE_ETHERNET_IP_PROTOCOL":0`, bit, "d udp://10.0.0.1:502 3 CDAB|every-100ms 100ms|a holding:1.3"},
		{"Modbus TCP/IP Ethernet", "", kepwareTagOf("a", "400002.8L", -1, ""), "d tcp://10.0.0.1:502 3 CDAB|every-100ms 100ms|a holding:1 string length 8 BADC"},
		{"Modbus RTU Serial", `,"modbus_rtu_serial.DEVICE_FIRST_WORD_LOW":false,"modbus_rtu_serial.DEVICE_FIRST_DWORD_LOW":false`, kepwareTagOf("a", "400002", 8, ""), "d rtuovertcp://10.0.0.1:502 3 ABCD|every-100ms 100ms|a holding:1 float32"},
	} {
		r, err := Import("kepware-json", []byte(kepwareProjectOf(c.driver, ethernet+c.more, c.tag)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := lines(r); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %q, want %q; %v", c.more, got, c.want, r.Problems)
		}
	}
	r, err := Import("kepware-json", []byte(kepwareProjectOf("Modbus TCP/IP Ethernet", ethernet+`,"servermain.DEVICE_REQUEST_TIMEOUT_MILLISECONDS":2500,"servermain.DEVICE_INTER_REQUEST_DELAY_MILLISECONDS":20`, bit)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Devices[0]; d.Timeout.String() != "2.5s" || fmt.Sprint(d.Options) != "[[pause_between_requests 20ms]]" {
		t.Errorf("%+v", d)
	}
}
