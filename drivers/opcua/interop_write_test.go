package opcua

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// nodeWrites are what is written to node-opcua's nodes, and what it says that it holds then; "" where a write is refused.
func nodeWrites() []struct {
	node  string
	v     telemetry.Value
	holds string
	err   string
} {
	list := func(v ...telemetry.Value) telemetry.Value { return telemetry.Array(v) }
	at := telemetry.Time(time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC))
	whole, negative := telemetry.Uint(200), telemetry.Int(-100)
	return []struct {
		node  string
		v     telemetry.Value
		holds string
		err   string
	}{
		{"Boolean", telemetry.Bool(true), "Boolean true", ""},
		{"SByte", negative, "SByte -100", ""},
		{"Byte", whole, "Byte 200", ""},
		{"Int16", telemetry.Int(-32768), "Int16 -32768", ""},
		{"UInt16", telemetry.Uint(65535), "UInt16 65535", ""},
		{"Int32", telemetry.Int(-1 << 31), "Int32 -2147483648", ""},
		{"UInt32", telemetry.Uint(1<<32 - 1), "UInt32 4294967295", ""},
		{"Int64", telemetry.Int(-8589934591), "Int64 [4294967294,1]", ""},
		{"UInt64", telemetry.Uint(1<<64 - 1), "UInt64 [4294967295,4294967295]", ""},
		{"Float", telemetry.Float64(0.5), "Float 0.5", ""},
		{"Double", telemetry.Float64(2.718281828459045), "Double 2.718281828459045", ""},
		{"String", telemetry.String("Größe 5 µm"), `String "Größe 5 µm"`, ""},
		{"DateTime", at, `DateTime "2026-01-02T03:04:05.678Z"`, ""},
		{"Guid", telemetry.String("09087e75-8e5e-499b-954f-f2a9603db28a"), `Guid "09087E75-8E5E-499B-954F-F2A9603DB28A"`, ""},
		{"ByteString", telemetry.String("00ff7f"), `ByteString "00ff7f"`, ""},
		{"LocalizedText", telemetry.String("neu"), `LocalizedText {"text":"neu"}`, ""},
		{"BooleanArray", list(telemetry.Bool(true), telemetry.Bool(false)), "Boolean[] [true,false]", ""},
		{"SByteArray", list(negative, telemetry.Int(7)), "SByte[] [-100,7]", ""},
		{"ByteArray", list(whole), "Byte[] [200]", ""},
		{"Int16Array", list(negative, telemetry.Int(3)), "Int16[] [-100,3]", ""},
		{"UInt16Array", list(whole, telemetry.Uint(1)), "UInt16[] [200,1]", ""},
		{"Int32Array", list(telemetry.Int(1), negative), "Int32[] [1,-100]", ""},
		{"UInt32Array", list(), "UInt32[] []", ""},
		{"Int64Array", list(telemetry.Int(1), telemetry.Int(-1)), "Int64[] [[0,1],[4294967295,4294967295]]", ""},
		{"UInt64Array", list(whole), "UInt64[] [[0,200]]", ""},
		{"FloatArray", list(telemetry.Float64(1.5), telemetry.Int(-2)), "Float[] [1.5,-2]", ""},
		{"DoubleArray", list(telemetry.Float64(0.1)), "Double[] [0.1]", ""},
		{"StringArray", list(telemetry.String("a"), telemetry.String("ß")), `String[] ["a","ß"]`, ""},
		{"DateTimeArray", list(at), `DateTime[] ["2026-01-02T03:04:05.678Z"]`, ""},
		{"Mode", telemetry.Int(2), "Int32 2", ""},
		{"Any", whole, "UInt16 200", ""},
		{"Byte", telemetry.Uint(256), "", "the value 256 does not fit the node's type Byte"},
		{"ReadOnly", telemetry.Float64(2), "", "BadNotWritable: "},
		{"Denied", telemetry.Float64(2), "", "; log in as a user who may"},
		{"Missing", telemetry.Float64(2), "", "BadNodeIdUnknown: "},
	}
}

// TestNodeOPCUAWrites writes each type to node-opcua, which says what it holds then, and reads it back.
func TestNodeOPCUAWrites(t *testing.T) {
	t.Parallel()
	url, said := nodeOPCUAIn(t, t.TempDir())
	writes := nodeWrites()
	c := connection(url, 20*time.Second)
	for i, w := range writes {
		c.Devices[0].Groups[0].Tags = append(c.Devices[0].Groups[0].Tags, telemetry.Tag{Name: fmt.Sprint(i), Address: "ns=1;s=Writable." + w.node,
			Options: map[string]string{"read_back": "true"}})
	}
	d := connect(t, c)
	for i, w := range writes {
		err := errors.Join(d.Write(t.Context(), []drivers.Write{{Tag: i, Value: w.v}})...)
		if (err == nil) != (w.err == "") || err != nil && !strings.Contains(err.Error(), w.err) {
			t.Errorf("%s: %v, want %q", w.node, err, w.err)
			continue
		}
		if w.err != "" {
			continue
		}
		select {
		case line := <-said:
			if want := "HOLDS " + w.node + " " + w.holds; line != want {
				t.Errorf("node-opcua says %s, want %s", line, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: node-opcua says nothing of it", w.node)
		}
	}
	select {
	case line := <-said:
		t.Errorf("node-opcua also says %s", line)
	default:
	}
}

// TestNodeOPCUACalls calls a method of node-opcua, which describes its arguments.
func TestNodeOPCUACalls(t *testing.T) {
	t.Parallel()
	c, err := Dial(t.Context(), connection(nodeOPCUA(t), 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const object = "ns=1;s=Writable"
	m, err := c.Method(t.Context(), object, "Sum")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(m.Inputs[0].String(), ", ", m.Inputs[1].String(), ", ", m.Inputs[2].String(), "; ", m.Outputs[0].String(), ", ", m.Outputs[1].String(), "; ", m.Inputs[0].Description); got != "scale Double, list UInt16[], mode Int32; sum Double, label String; of the sum" {
		t.Errorf("the method is %s", got)
	}
	list := telemetry.Array([]telemetry.Value{telemetry.Uint(10), telemetry.Uint(11)})
	out, err := c.Call(t.Context(), m, []telemetry.Value{telemetry.Float64(2), list, telemetry.Int(1)})
	if err != nil || len(out) != 2 || out[0].Value != telemetry.Float64(42) || out[1].Value.Text != "mode 1" || out[0].Type != "Double" {
		t.Errorf("%+v, %v", out, err)
	}
	for _, bad := range []struct {
		args []telemetry.Value
		want string
	}{
		{[]telemetry.Value{telemetry.Float64(-2), list, telemetry.Int(1)}, "BadOutOfRange: "},
		{[]telemetry.Value{telemetry.Float64(2), telemetry.Uint(1), telemetry.Int(1)}, `argument "list": it holds an array`},
		{[]telemetry.Value{telemetry.Float64(2)}, "the method takes 3 arguments, not 1"},
	} {
		if _, err := c.Call(t.Context(), m, bad.args); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%v, want %q", err, bad.want)
		}
	}
	if _, err := c.Method(t.Context(), object, "Product"); err == nil || !strings.Contains(err.Error(), `has no method "Product"; it has "Sum"`) {
		t.Error(err)
	}
	callsByRule(t, c.driver)
}

// callsByRule calls the same method as the gateway does for a rule of its config.
func callsByRule(t *testing.T, d *driver) {
	names, err := d.namespaces(t.Context())
	if err != nil || len(names) < 2 {
		t.Fatal(names, err)
	}
	m := drivers.Method{Object: "nsu=" + names[1] + ";s=Writable", Node: "Sum"}
	list := telemetry.Array([]telemetry.Value{telemetry.Uint(10), telemetry.Uint(11)})
	for _, node := range []string{"Sum", "nsu=" + names[1] + ";s=Writable.Sum"} {
		m.Node = node
		out, err := d.Call(t.Context(), m, func(takes []drivers.Argument) ([]telemetry.Value, error) {
			if got := fmt.Sprint(takes); got != "[{scale float64 false} {list uint16 true} {mode int32 false}]" {
				t.Errorf("it takes %s", got)
			}
			return []telemetry.Value{telemetry.Float64(2), list, telemetry.Int(1)}, nil
		})
		if err != nil || len(out) != 2 || out[0] != (drivers.Result{Name: "sum", Type: "Double", Value: telemetry.Float64(42)}) || out[1].Value.Text != "mode 1" {
			t.Errorf("%s: %+v, %v", node, out, err)
		}
	}
	asked := 0
	if _, err := d.Call(t.Context(), m, giving(&asked, telemetry.Float64(-2), list, telemetry.Int(1))); err == nil || !strings.Contains(err.Error(), "BadOutOfRange: ") || errors.Is(err, drivers.ErrLink) {
		t.Error(err)
	}
	if _, err := d.namespaces(t.Context()); err != nil { // the link is good
		t.Error(err)
	}
}

// TestNodeOPCUAFinds: a server names itself.
func TestNodeOPCUAFinds(t *testing.T) {
	t.Parallel()
	url := nodeOPCUA(t)
	found, err := FindServers(t.Context(), url, 20*time.Second)
	if err != nil || len(found) == 0 || found[0].Kind != "server" || len(found[0].URLs) == 0 || !strings.HasPrefix(found[0].URLs[0], "opc.tcp://") {
		t.Errorf("%+v, %v", found, err)
	}
}
