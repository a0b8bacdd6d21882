package importer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// jargon is what no user should have to read.
var jargon = []string{"unmarshal", "struct", "Go ", "importer.", "!!", "cannot decode", "construct", "<nil>", "%!"}

// TestWrongFiles: what cannot be read is told in plain words, with the place and what belongs there, and a file of another
// format is recognised.
func TestWrongFiles(t *testing.T) {
	file := func(name string) string {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for _, c := range []struct{ format, text, want string }{
		{"openmodbus", "device: {id: x}\nregisters: [1\n", "line 3, column 1: this is not YAML: did not find expected ',' or ']'; mend it there"},
		{"openmodbus", "device: 3\nregisters: {'1': {name: a}}", `the key "device" is the number 3, where a block of keys belongs; correct it in the file`},
		{"openmodbus", "registers: [1]", `the key "registers" is a list, where a block of keys belongs`},
		{"openmodbus", "registers: {'1': {name: a}, '1': {name: b}}", `line 1, column 29: the key "1" stands here a second time; delete one`},
		{"openmodbus", "registers: &a {'1': *a}", "line 1"},
		{"openmodbus", "- 1", "it is a list, where a block of keys belongs"},
		{"benthos-umh", "input:\n  modbus:\n    timeout: [1]\n", `the key "input.modbus.timeout" is a list, where a text belongs`},
		{"benthos-umh", "input: {broker: {}}", "it has no input.modbus"},
		{"kepware-json", "{\"project\": {\n \"channels\": }", "line 2, column 14: this is not JSON: unexpected character '}' looking for beginning of value; mend it there"},
		{"kepware-json", "{\"project\": {", "line 1, column 14: the JSON document is not whole; save it again"},
		{"kepware-json", "{\"project\": {}}\n{}", "line 2, column 2: something stands behind the end"},
		{"kepware-json", `{"project": {"channels": 3}}`, `the key "project.channels" is the number 3, where a list belongs`},
		{"kepware-json", `{"a": 1}`, "it has no project"},
		{"telegraf", "[agent]\ninterval = 1 2\n", "line 2, column 14: this is not TOML: "},
		{"telegraf", "[inputs.modbus]\nname = \"a\"\n", `the key "inputs.modbus" is a block of keys, where a list belongs`},
		{"telegraf", "[[outputs.mqtt]]\n", "it has no [[inputs.modbus]]"},
		{"kepware-csv", "a,b\n1,2\n", "none of the first 20 rows has the columns Tag Name, Address, Data Type"},
		{"kepware-csv", "Tag Name,Address,Data Type\n", "the file holds no tags"},
		{"telegraf", " \n", "the file is empty"},
		{"telegraf", "\x7fELF\x00\x01", "the file is binary and no text"},
		{"kepware-json", "<?xml version=\"1.0\"?><a/>", "the file is XML or HTML"},
		{"openmodbus", strings.Repeat(" ", 3000) + "<a/>", "the file is XML or HTML"},
		{"kepware-json", "PK\x03\x04abc", "the file is an Excel workbook or another archive"},
		{"openmodbus", "registers: {'1': {name: \"\xb0\"}}", "the file is not UTF-8"},
		{"openmodbus", file("kepware.json"), "looks like kepware-json, so write millrace import kepware-json"},
		{"benthos-umh", file("openmodbus.yaml"), "looks like openmodbus,"},
		{"openmodbus", file("umh.yaml"), "looks like benthos-umh,"},
		{"kepware-json", file("telegraf.toml"), "looks like telegraf,"},
		{"telegraf", file("kepware.csv"), "looks like kepware-csv,"},
		{"kepware-csv", file("neuron.csv"), "looks like neuron-csv,"},
	} {
		r, err := Import(c.format, []byte(c.text), Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q:\n%v\nwant %s (%+v)", c.format, clip(c.text, 60), err, c.want, r)
			continue
		}
		plainWords(t, err.Error())
	}
}

func plainWords(t *testing.T, text string) {
	t.Helper()
	for _, word := range jargon {
		if strings.Contains(text, word) {
			t.Errorf("%q holds %q", text, word)
		}
	}
}

// TestWrongEntries: an entry that does not fit is left out and named, and costs no other.
func TestWrongEntries(t *testing.T) {
	for _, c := range []struct{ format, text, want string }{
		{"openmodbus", "device: {id: x}\nregisters: {'1': {name: a, type: uint16, register_type: holding}, '2': {name: b, length: two}, '3': [1]}",
			`registers "2": left out: the key "length" is the text "two", where a whole number belongs; correct it in the file`},
		{"openmodbus", "registers: {'1': {name: 7, type: uint16, register_type: holding, unit: 1}, '3': [1]}", `registers "3": left out: it is a list, where a block of keys belongs`},
		{"kepware-json", `{"project":{"channels":[{"common.ALLTYPES_NAME":"c","servermain.MULTIPLE_TYPES_DEVICE_DRIVER":"Modbus","devices":[{"tags":[
			{"common.ALLTYPES_NAME":"a","servermain.TAG_ADDRESS":"400001"},{"common.ALLTYPES_NAME":"b","servermain.TAG_ADDRESS":400002}]}]}]}}`,
			`tags 2 "b": left out: the key "servermain.TAG_ADDRESS" is the number 400002, where a text belongs`},
		{"telegraf", "[[inputs.modbus]]\nslave_id=1\nholding_registers=[{name=\"a\",data_type=\"UINT16\",address=[1]},{name=\"b\",data_type=\"UINT16\",scale=\"x\",address=[2]}]\n",
			`holding_registers 2 "b": left out: the key "scale" is the text "x", where a number belongs`},
		{"benthos-umh", "input: {modbus: {slaveID: 1, addresses: [{name: a, type: UINT16, address: 1}, {name: b, type: UINT16, address: 1.5}]}}",
			`addresses 2 "b": left out: the key "address" is the number 1.5, where a whole number belongs`},
		{"telegraf", "[[inputs.modbus]]\nslave_id=1\nholding_registers=[{name=\"a\",data_type=\"UINT16\",address=[1]},{name=\"b\",data_type=\"UINT16\",address=[70000]}]\n",
			`field "b": left out: its address 70000 is out of range; a register is 0 to 65535, as on the wire`},
		{"telegraf", "[[inputs.modbus]]\nslave_id=1\nholding_registers=[{name=\"a\",data_type=\"UINT16\",address=[1]},{name=\"b\",data_type=\"UINT16\",address=[\"x\"]}]\n",
			`field "b": left out: its address is the text "x", and a register is a whole number; write it by hand`},
	} {
		r, err := Import(c.format, []byte(c.text), Options{})
		if err != nil || r.Tags != 1 {
			t.Errorf("%s: %v, %+v", c.text, err, r)
			continue
		}
		said(t, r, c.text, c.want)
	}
}

// said looks for a remark.
func said(t *testing.T, r *Result, text, want string) {
	t.Helper()
	found := false
	for _, p := range r.Problems {
		plainWords(t, p.String())
		goodWords(t, p)
		found = found || strings.Contains(p.String(), want)
	}
	if !found {
		t.Errorf("%s\nsays %q\nwant %s", text, r.Problems, want)
	}
}

// TestTables: a table in the letters of Windows is read, and what is wrong with its form is told.
func TestTables(t *testing.T) {
	const head = "Tag Name,Address,Data Type,Eng Units,Description\n"
	units := utf16.Encode([]rune(head + "a,400001,Word,°C,ä\n"))
	wide := []byte("\xff\xfe")
	for _, u := range units {
		wide = binary.LittleEndian.AppendUint16(wide, u)
	}
	for _, text := range []string{head + "a,400001,Word,\xb0C,\xe4\n", string(wide)} {
		r, err := Import("kepware-csv", []byte(text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if tag := r.Devices[0].Groups[0].Tags[0]; tag.Unit != "°C" || tag.Description != "ä" {
			t.Errorf("%+v", tag)
		}
	}
	for text, want := range map[string]string{
		head + "a,400001,Word,\xb0C,\xe4\n":                          "Western Windows letters (code page 1252)",
		head + "a,400001,Word,,\"open\nb,400002,Word\n":              "line 2: one of its texts goes on for 2 more lines",
		head + "a,400001,Word,,one, two\n":                           `line 2: "two" stands behind the last heading`,
		"Address,Tag Name,Address,Data Type\n400001,a,400002,Word\n": `two columns are called "Address"`,
	} {
		r, err := Import("kepware-csv", []byte(text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		said(t, r, text, want)
	}
	if r, err := Import("kepware-csv", []byte(head+"a,400001,Word,,\n,,,,\n"), Options{}); err != nil || len(r.Problems) != 4 {
		t.Errorf("an empty row is not passed over: %v, %q", err, r.Problems)
	}
}

// TestCommandFails: a file that cannot be imported is told as such, with its name, and is no wrong usage.
func TestCommandFails(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{"empty.csv": "", "left.csv": "Tag Name,Address,Data Type\na,1,Word\n"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	errFailed := errors.New("failed")
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := New(func(err error) error { return errors.Join(errFailed, err) })
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs(args)
		err := cmd.Execute()
		return out.String(), err
	}
	for name, want := range map[string]string{"none.csv": "there is no such file", "": "it is a folder", "empty.csv": "the file is empty", "left.csv": "nothing of it could be translated"} {
		path := filepath.Join(folder, name)
		_, err := run("kepware-csv", path)
		if !errors.Is(err, errFailed) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	for _, args := range [][]string{{"kepware-csv"}, {"excel", "a.csv"}} {
		if _, err := run(args...); errors.Is(err, errFailed) || !strings.Contains(err.Error(), "neuron-csv, openmodbus") {
			t.Errorf("%q: %v", args, err)
		}
	}
	if out, err := run("neuron-csv", "testdata/neuron.csv", "--unit", "5"); err != nil || strings.Contains(out, "unit id") {
		t.Errorf("%v\n%s", err, out)
	}
}
