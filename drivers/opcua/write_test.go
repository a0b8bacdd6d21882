package opcua

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// writeCase is a variable, a tag's type and a value, and what the server holds then or the error.
type writeCase struct {
	name string
	node opcuasim.Writable
	typ  string
	v    telemetry.Value
	want any
	err  string
}

func ints(n ...int64) telemetry.Value {
	var all []telemetry.Value
	for _, i := range n {
		all = append(all, telemetry.Int(i))
	}
	return telemetry.Array(all)
}

func writeCases() []writeCase {
	at := time.Date(2026, 11, 27, 4, 5, 6, 700_000_000, time.UTC)
	holds := func(v any) opcuasim.Writable { return opcuasim.Writable{Value: v} }
	is := func(kind uint32) opcuasim.Writable { return opcuasim.Writable{DataType: kind} }
	return []writeCase{
		{"bool", holds(false), "", telemetry.Bool(true), true, ""},
		{"sbyte", holds(int8(0)), "", telemetry.Int(-128), int8(-128), ""},
		{"byte", holds(uint8(0)), "", telemetry.Uint(255), uint8(255), ""},
		{"int16", holds(int16(0)), "", telemetry.Int(-32768), int16(-32768), ""},
		{"uint16", holds(uint16(0)), "", telemetry.Uint(65535), uint16(65535), ""},
		{"int32", holds(int32(0)), "", telemetry.Int(-1 << 31), int32(-1 << 31), ""},
		{"uint32", holds(uint32(0)), "", telemetry.Uint(1<<32 - 1), uint32(1<<32 - 1), ""},
		{"int64", holds(int64(0)), "", telemetry.Int(math.MinInt64), int64(math.MinInt64), ""},
		{"uint64", holds(uint64(0)), "", telemetry.Uint(math.MaxUint64), uint64(math.MaxUint64), ""},
		{"float", holds(float32(0)), "", telemetry.Float64(0.1), float32(0.1), ""},
		{"double", holds(0.0), "", telemetry.Float64(0.1), 0.1, ""},
		{"string", holds(""), "", telemetry.String("Größe ✓"), "Größe ✓", ""},
		{"time", holds(time.Now()), "", telemetry.Time(at), at, ""},
		{"text with a locale", holds(ua.NewLocalizedText("x")), "", telemetry.String("neu"), ua.NewLocalizedText("neu"), ""},
		{"bytes", holds([]byte{1}), "", telemetry.String("00ff7f"), []byte{0, 0xff, 0x7f}, ""},
		{"guid", holds(ua.NewGUID("09087E75-8E5E-499B-954F-F2A9603DB28A")), "", telemetry.String("c496578a-0dfe-4b8f-870a-745238c6aeae"), ua.NewGUID("C496578A-0DFE-4B8F-870A-745238C6AEAE"), ""},
		{"array", holds([]int32{}), "", ints(1, -2, 3), []int32{1, -2, 3}, ""},
		{"array of none", holds([]int32{1}), "", ints(), []int32{}, ""},
		{"array of bools", holds([]bool{true}), "", telemetry.Array([]telemetry.Value{telemetry.Bool(false), telemetry.Bool(true)}), []bool{false, true}, ""},
		{"array of floats", holds([]float32{1}), "", telemetry.Array([]telemetry.Value{telemetry.Float64(-2.25), telemetry.Int(3)}), []float32{-2.25, 3}, ""},
		{"array of texts", holds([]string{"x"}), "", telemetry.Array([]telemetry.Value{telemetry.String("a"), telemetry.String("")}), []string{"a", ""}, ""},

		{"no value yet", is(id.Int16), "", telemetry.Int(7), int16(7), ""},
		{"no array yet", opcuasim.Writable{DataType: id.Double, Rank: 1}, "", ints(7), []float64{7}, ""},
		{"the type of its value", opcuasim.Writable{Value: uint16(1), DataType: id.BaseDataType, Rank: -1}, "", telemetry.Int(7), uint16(7), ""},
		{"the tag's type", is(id.BaseDataType), "float32", telemetry.Float32(7.5), float32(7.5), ""},
		{"an enumeration", opcuasim.Writable{Parent: id.Enumeration}, "", telemetry.Int(2), int32(2), ""},
		{"a derived type", opcuasim.Writable{Parent: id.Double}, "", telemetry.Float64(2.5), 2.5, ""},
		{"a tag of another type", holds(uint8(0)), "bool", telemetry.Bool(true), uint8(1), ""},
		{"whole, of a float tag", holds(int32(0)), "float64", telemetry.Float64(-3), int32(-3), ""},

		{"over its type", holds(uint8(1)), "", telemetry.Int(256), uint8(1), "the value 256 does not fit the node's type Byte"},
		{"below its type", holds(uint64(1)), "", telemetry.Int(-1), uint64(1), "the value -1 does not fit the node's type UInt64"},
		{"between two that it holds", holds(int32(1)), "", telemetry.Float64(1.5), int32(1), "the value 1.5 does not fit the node's type Int32"},
		{"whole and not held by a float", holds(float32(1)), "", telemetry.Int(16777217), float32(1), "does not fit the node's type Float"},
		{"whole and not held by a float, as one", holds(float32(1)), "", telemetry.Float64(16777217), float32(1), "does not fit the node's type Float"},
		{"whole and not held by a double", holds(1.0), "", telemetry.Uint(1<<53 + 1), 1.0, "does not fit the node's type Double"},
		{"too large for a float", holds(float32(1)), "", telemetry.Float64(1e39), float32(1), "does not fit the node's type Float"},
		{"a text for a number", holds(int32(1)), "", telemetry.String("2"), int32(1), `the value "2" does not fit the node's type Int32`},
		{"an element over its type", holds([]int16{1}), "", ints(5, 70000), []int16{1}, "element 1: the value 70000 does not fit the node's type Int16"},
		{"one for an array", holds([]int16{1}), "", telemetry.Int(1), []int16{1}, "it holds an array, Int16[]; write one such as [1, 2, 3]"},
		{"an array for one", holds(int16(1)), "", ints(1), int16(1), "it holds a single Int16, not an array"},
		{"an array of arrays", holds([]int16{1}), "", telemetry.Array([]telemetry.Value{ints(1)}), []int16{1}, "element 0: arrays within arrays are not written"},
		{"a matrix", holds([][]int16{{1}, {2}}), "", ints(1), [][]int16{{1}, {2}}, "arrays of several dimensions are not written"},
		{"no guid", holds(ua.NewGUID("09087E75-8E5E-499B-954F-F2A9603DB28A")), "", telemetry.String("x"), ua.NewGUID("09087E75-8E5E-499B-954F-F2A9603DB28A"), "is no Guid"},
		{"no bytes", holds([]byte{1}), "", telemetry.String("abc"), []byte{1}, "is no ByteString"},
		{"no text", holds("x"), "", telemetry.String("\xff"), "x", "the text is not UTF-8"},
		{"a time that means never", holds(at), "", telemetry.Value{Kind: telemetry.KindTime, Bits: lastTick}, at, "out of OPC UA's range"},
		{"any type and no value", is(id.BaseDataType), "", telemetry.Int(1), nil, "the node takes any type and holds no value; write the type at the tag"},
		{"a structure", is(id.Structure), "", telemetry.Int(1), nil, "values of type structure are not written"},
		{"a node id", holds(ua.NewNumericNodeID(0, 1)), "", telemetry.String("i=2"), ua.NewNumericNodeID(0, 1), "values of type NodeId are not written"},

		{"read only", opcuasim.Writable{Value: 1.5, Refuse: uint32(ua.StatusBadNotWritable)}, "", telemetry.Float64(2), 1.5, "BadNotWritable: "},
		{"not this user", opcuasim.Writable{Value: 1.5, Refuse: uint32(ua.StatusBadUserAccessDenied)}, "", telemetry.Float64(2), 1.5, "; log in as a user who may, with username and password or user_certificate"},
		{"another type than it says", opcuasim.Writable{Value: 1.5, Refuse: uint32(ua.StatusBadTypeMismatch)}, "", telemetry.Float64(2), 1.5, "BadTypeMismatch: "},
		{"out of its range", opcuasim.Writable{Value: 1.5, Refuse: uint32(ua.StatusBadOutOfRange)}, "", telemetry.Float64(2), 1.5, "the server's own range is narrower"},
		{"perhaps", opcuasim.Writable{Value: 1.5, Refuse: uint32(ua.StatusBadTimeout)}, "", telemetry.Float64(2), 1.5, "it is not known whether the server wrote it"},
		{"uncertain", opcuasim.Writable{Value: 1.5, Refuse: uint32(ua.StatusUncertainInitialValue)}, "", telemetry.Float64(2), 1.5, "it is not known whether the server wrote it"},
		{"later", opcuasim.Writable{Value: 1.5, Refuse: uint32(ua.StatusGoodCompletesAsynchronously)}, "", telemetry.Float64(2), 1.5, "it has taken the value and writes it later"},
	}
}

// TestWrite writes each type, and what a type cannot hold; the server is asked what it holds then.
func TestWrite(t *testing.T) {
	s := start(t, opcuasim.Options{Browsable: true}, 1)
	cases := writeCases()
	c := connection(s.Endpoint(), 10*time.Second)
	for i, w := range cases {
		s.AddWritable(fmt.Sprintf("w%d", i), w.node)
		c.Devices[0].Groups[0].Tags = append(c.Devices[0].Groups[0].Tags, telemetry.Tag{Name: w.name, Address: fmt.Sprintf("ns=2;s=w%d", i), Type: w.typ,
			Options: map[string]string{"read_back": "true"}})
	}
	d := connect(t, c)
	for i, w := range cases {
		before := s.Writes()
		err := errors.Join(d.Write(t.Context(), []drivers.Write{{Tag: i, Value: w.v}})...)
		if (err == nil) != (w.err == "") || err != nil && !strings.Contains(err.Error(), w.err) {
			t.Errorf("%s: %v; want %q", w.name, err, w.err)
		}
		if got := s.Written(fmt.Sprintf("w%d", i)); !reflect.DeepEqual(got, w.want) {
			t.Errorf("%s: the server holds %#v, want %#v", w.name, got, w.want)
		}
		if sent := s.Writes() - before; w.err != "" && w.node.Refuse == 0 && sent != 0 {
			t.Errorf("%s: %d requests were sent", w.name, sent)
		}
		if errors.Is(err, drivers.ErrLink) {
			t.Errorf("%s: %v: the link is good", w.name, err)
		}
	}
	read(t, d) // the link is
}

// TestWriteOthers writes to nodes that are none, or no variables.
func TestWriteOthers(t *testing.T) {
	s := start(t, opcuasim.Options{}, 1)
	c := connection(s.Endpoint(), 10*time.Second, "ns=2;s=missing", "nsu=urn:nobody;s=x", "ns=2;s=v0", "ns=7;s=x")
	c.Devices[0].Groups[0].Tags[2].Type = "float64"
	d := connect(t, c)
	for tag, want := range []string{"BadNodeIdUnknown: ", `the server has no namespace "urn:nobody"`, "BadNotWritable: ", "BadNodeIdUnknown: "} {
		err := errors.Join(d.Write(t.Context(), []drivers.Write{{Tag: tag, Value: telemetry.Float64(5)}})...)
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, drivers.ErrLink) {
			t.Errorf("tag %d: %v, want %q", tag, err, want)
		}
	}
	wantNumbers(t, read(t, d)[2:3], map[int]string{})
}

// TestReadBack has a server that confirms and holds something else.
func TestReadBack(t *testing.T) {
	s := start(t, opcuasim.Options{}, 1)
	s.AddWritable("limited", opcuasim.Writable{Value: 1.0, Change: func(v any) any { return min(v.(float64), 10) }})
	s.AddWritable("localized", opcuasim.Writable{Value: ua.NewLocalizedText("x"), Change: func(v any) any {
		return ua.NewLocalizedTextWithLocale(v.(*ua.LocalizedText).Text, "de")
	}})
	c := connection(s.Endpoint(), 10*time.Second, "ns=2;s=limited", "ns=2;s=limited", "ns=2;s=localized")
	for _, tag := range []int{1, 2} {
		c.Devices[0].Groups[0].Tags[tag].Options = map[string]string{"read_back": "true"}
	}
	d := connect(t, c)
	errs := d.Write(t.Context(), []drivers.Write{{Tag: 0, Value: telemetry.Float64(50)}, {Tag: 1, Value: telemetry.Float64(60)},
		{Tag: 1, Value: telemetry.Float64(5)}, {Tag: 2, Value: telemetry.String("neu")}})
	if errs[0] != nil || errs[2] != nil || errs[3] != nil || errs[1] == nil || !strings.Contains(errs[1].Error(), "the server confirmed it and holds 10; ") {
		t.Error(errs)
	}
}

// TestWriteLink: a write without an answer says that the link is down, the ones behind it are not tried, and the next session works.
func TestWriteLink(t *testing.T) {
	t.Parallel()
	s := start(t, opcuasim.Options{}, 1)
	s.AddWritable("w", opcuasim.Writable{Value: 1.0})
	c := connection(s.Endpoint(), brief, "ns=2;s=w")
	d := connect(t, c)
	s.SetSilent(true)
	errs := d.Write(t.Context(), []drivers.Write{{Value: telemetry.Float64(2)}, {Value: telemetry.Float64(3)}})
	if !errors.Is(errs[0], drivers.ErrLink) || !errors.Is(errs[1], drivers.ErrLink) || !strings.Contains(errs[1].Error(), "not tried") || s.Writes() != 0 {
		t.Error(errs, s.Writes())
	}
	if _, _, err := d.WriteType(t.Context(), drivers.Ref{}, 0); !errors.Is(err, drivers.ErrLink) {
		t.Error(err)
	}
	s.SetSilent(false)
	d.Close()
	if errs := d.Write(t.Context(), []drivers.Write{{Value: telemetry.Float64(2)}}); !errors.Is(errs[0], drivers.ErrLink) {
		t.Error("not connected:", errs)
	}
	c.Devices[0].Timeout = 10 * time.Second
	d = connect(t, c)
	if errs := d.Write(t.Context(), []drivers.Write{{Value: telemetry.Float64(2)}}); errs[0] != nil || s.Written("w") != 2.0 {
		t.Error(errs, s.Written("w"))
	}
	s.DropSessions()
	if errs := d.Write(t.Context(), []drivers.Write{{Value: telemetry.Float64(3)}}); errs[0] == nil || s.Written("w") != 2.0 {
		t.Error("a session that the server has lost:", errs)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if errs := d.Write(ended, []drivers.Write{{Value: telemetry.Float64(3)}}); errs[0] == nil {
		t.Error("an ended context: no error")
	}
}

// TestWriteWhileSubscribed: the feed and a write share a session.
func TestWriteWhileSubscribed(t *testing.T) {
	s := start(t, opcuasim.Options{}, 1)
	s.AddWritable("w", opcuasim.Writable{Value: 1.0})
	c := connection(s.Endpoint(), 10*time.Second, "ns=2;s=w")
	c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
	d := connect(t, c)
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	pushes := d.Pushed()
	for n := 2; n < 6; n++ {
		if errs := d.Write(t.Context(), []drivers.Write{{Value: telemetry.Int(int64(n))}}); errs[0] != nil {
			t.Fatal(errs)
		}
		next(t, pushes, func(p *drivers.Push) bool {
			return len(p.Readings) > 0 && p.Readings[len(p.Readings)-1].Value == telemetry.Float64(float64(n))
		})
	}
}

// TestWriteType: values are written as the tag shows them.
func TestWriteType(t *testing.T) {
	s := start(t, opcuasim.Options{}, 1)
	s.AddWritable("byte", opcuasim.Writable{Value: uint8(1)})
	s.AddWritable("list", opcuasim.Writable{Value: []float32{1}})
	c := connection(s.Endpoint(), 10*time.Second, "ns=2;s=byte", "ns=2;s=byte", "ns=2;s=list", "ns=2;s=none", "ns=2;s=list", "ns=2;s=list", "ns=2;s=byte", "i=2253")
	tags := c.Devices[0].Groups[0].Tags
	tags[1].Type, tags[4].Type, tags[7].Type = "bool", "json", "event"
	tags[5].Options = map[string]string{"field": "[0]"}
	tags[6].Options = map[string]string{"enum": "0=off, 1=on"}
	d := connect(t, c)
	for tag, want := range []string{"uint8 false <nil>", "bool false <nil>", "float32 true <nil>", " false write ns=2;s=none: BadNodeIdUnknown: ",
		"float32 true <nil>", " false write ns=2;s=list: a field or element alone cannot be written", "uint8 false <nil>", " false write i=2253: events cannot be written"} {
		typ, array, err := d.WriteType(t.Context(), drivers.Ref{}, tag)
		if got := fmt.Sprintf("%v %v %v", typ, array, err); !strings.HasPrefix(got, want) {
			t.Errorf("tag %d: %s, want %s", tag, got, want)
		}
	}
}
