package opcua

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// space is the data types of a simulated server.
type space struct {
	mu         sync.Mutex
	attributes map[string]map[ua.AttributeID]any
	refers     map[string][]opcuasim.Reference
	asked      int
}

func newSpace() *space {
	return &space{attributes: map[string]map[ua.AttributeID]any{}, refers: map[string][]opcuasim.Reference{}}
}

func (s *space) options() opcuasim.Options {
	return opcuasim.Options{
		Attribute: func(node string, attribute ua.AttributeID) any {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked++
			return s.attributes[node][attribute]
		},
		Refers: func(node string, reference uint32, inverse bool) []opcuasim.Reference {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked++
			return s.refers[fmt.Sprint(node, reference, inverse)]
		},
	}
}

func (s *space) attribute(node string, attribute ua.AttributeID, value any) {
	if s.attributes[node] == nil {
		s.attributes[node] = map[ua.AttributeID]any{}
	}
	s.attributes[node][attribute] = value
}

func (s *space) refer(node string, reference uint32, inverse bool, to, name string) {
	key := fmt.Sprint(node, reference, inverse)
	s.refers[key] = append(s.refers[key], opcuasim.Reference{Node: to, Name: name})
}

// structure adds a type ns=2;i=n, whose encoding is ns=2;i=n+1. A field is "name type rank", and optional with a '?' behind it.
func (s *space) structure(n int, name string, kind ua.StructureType, fields ...string) {
	node, encoding := fmt.Sprintf("ns=2;i=%d", n), fmt.Sprintf("ns=2;i=%d", n+1)
	d := &ua.StructureDefinition{DefaultEncodingID: ua.MustParseNodeID(encoding), BaseDataType: ua.NewNumericNodeID(0, id.Structure), StructureType: kind}
	for _, text := range fields {
		f := ua.StructureField{Description: &ua.LocalizedText{}, ValueRank: -1}
		words := strings.Fields(strings.TrimSuffix(text, "?"))
		f.Name, f.DataType, f.IsOptional = words[0], ua.MustParseNodeID(words[1]), strings.HasSuffix(text, "?")
		if len(words) > 2 {
			fmt.Sscan(words[2], &f.ValueRank)
		}
		d.Fields = append(d.Fields, &f)
	}
	s.attribute(node, ua.AttributeIDDataTypeDefinition, extension("i=122", d))
	s.attribute(node, ua.AttributeIDBrowseName, &ua.QualifiedName{NamespaceIndex: 2, Name: name})
	s.attribute(node, ua.AttributeIDIsAbstract, false)
	s.refer(encoding, id.HasEncoding, true, node, name)
}

// extension is a structure as a value.
func extension(encoding string, body any) *ua.ExtensionObject {
	return &ua.ExtensionObject{EncodingMask: ua.ExtensionObjectBinary, TypeID: ua.NewExpandedNodeID(ua.MustParseNodeID(encoding), "", 0), Value: body}
}

// raw is the body of a structure as it stands in a message.
type raw []byte

func (r raw) Encode() ([]byte, error) { return r, nil }

// bytesOf puts values behind each other as they stand in a message.
func bytesOf(t testing.TB, values ...any) (all raw) {
	t.Helper()
	for _, v := range values {
		if s, ok := v.(string); ok {
			b := ua.NewBuffer(nil)
			b.WriteString(s)
			all = append(all, b.Bytes()...)
			continue
		}
		b, err := ua.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// machine is the data types of TestStructures.
func machine() *space {
	s := newSpace()
	s.structure(100, "Pair", ua.StructureTypeStructure, "x i=6", "y i=6")
	s.structure(110, "Tree", ua.StructureTypeStructure, "n i=3", "below ns=2;i=110 1")
	s.structure(120, "Maybe", ua.StructureTypeStructureWithOptionalFields, "a i=3", "b i=3?", "c ns=2;i=100?", "d i=12?")
	s.structure(130, "Either", ua.StructureTypeUnion, "n i=6", "pair ns=2;i=100")
	s.structure(140, "Grid", ua.StructureTypeStructure, "cells i=4 2", "end i=3")
	s.structure(150, "Any", ua.StructureTypeStructure, "one i=24", "many i=24 1", "what ns=2;i=160", "number i=26", "status i=19", "text i=21")
	s.structure(160, "Abstract", ua.StructureTypeStructure)
	s.attribute("ns=2;i=160", ua.AttributeIDIsAbstract, true)
	s.structure(170, "Open", 3, "plain ns=2;i=100", "any ns=2;i=100?", "number i=11?") // with values of subtypes
	s.structure(180, "Vague", ua.StructureTypeStructure, "x i=6 -2")
	s.structure(190, "Unknown", ua.StructureTypeStructure, "x ns=2;i=999")
	s.structure(200, "Direct", ua.StructureTypeStructure, "n i=3")
	delete(s.refers, fmt.Sprint("ns=2;i=201", uint32(id.HasEncoding), true)) // the node's data type has to be asked for
	s.attribute("ns=2;s=direct", ua.AttributeIDDataType, ua.MustParseNodeID("ns=2;i=200"))
	s.attribute("ns=2;s=lies", ua.AttributeIDDataType, ua.MustParseNodeID("ns=2;i=200"))
	s.structure(210, "Sub", ua.StructureTypeStructure, "flags ns=2;i=300", "level ns=2;i=301 1", "long ns=2;i=302")
	s.refer("ns=2;i=300", id.HasSubtype, true, "i=7", "UInt32")
	s.attribute("ns=2;i=300", ua.AttributeIDDataTypeDefinition, extension("i=123", &ua.EnumDefinition{Fields: []*ua.EnumField{
		{Value: 0, DisplayName: &ua.LocalizedText{}, Description: &ua.LocalizedText{}, Name: "hot"},
		{Value: 4, DisplayName: ua.NewLocalizedText("full"), Description: &ua.LocalizedText{}, Name: "FULL"}}}))
	s.refer("ns=2;i=301", id.HasSubtype, true, "i=29", "Enumeration")
	s.refer("ns=2;i=301", id.HasProperty, false, "ns=2;s=strings", "EnumStrings")
	s.refer("ns=2;i=302", id.HasSubtype, true, "ns=2;i=303", "Longer")
	s.refer("ns=2;i=303", id.HasSubtype, true, "i=290", "Duration")
	s.structure(220, "Empty", ua.StructureTypeStructure)
	s.structure(230, "Bush", ua.StructureTypeStructure, "a ns=2;i=230", "b ns=2;i=230")
	s.structure(240, "TooOptional", ua.StructureTypeStructureWithOptionalFields, strings.Split(strings.Repeat("a i=3?,", 33)[:33*7-1], ",")...)
	return s
}

// valueCase is a value of a simulated server and the reading that it is, or a part of it where that is bad.
type valueCase struct {
	name  string
	value any
	want  string
}

func structureCases(t *testing.T) []valueCase {
	xml := extension("ns=2;i=101", raw{60, 62})
	xml.EncodingMask = ua.ExtensionObjectXML
	u8, u32, i32 := func(n byte) any { return n }, func(n uint32) any { return n }, func(n int32) any { return n }
	pair := extension("ns=2;i=101", bytesOf(t, i32(1), i32(-2)))
	tree := raw{7, 0, 0, 0, 0}
	for range 14 {
		tree = append(raw{7, 1, 0, 0, 0}, tree...)
	}
	deep := append(raw{7, 1, 0, 0, 0}, append(raw{7, 1, 0, 0, 0}, tree...)...)
	return []valueCase{
		{"pair", pair, `good string "{\"x\":1,\"y\":-2}"`},
		{"pairs", []*ua.ExtensionObject{pair, pair}, `good string "[{\"x\":1,\"y\":-2},{\"x\":1,\"y\":-2}]"`},
		{"tree", extension("ns=2;i=111", raw{1, 2, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff}), `good string "{\"n\":1,\"below\":[{\"n\":2,\"below\":[]},{\"n\":3,\"below\":[]}]}"`},
		{"high tree", extension("ns=2;i=111", tree), `good string "{\"n\":7,` + strings.Repeat(`\"below\":[{\"n\":7,`, 14) + `\"below\":[]}` + strings.Repeat(`]}`, 14) + `"`},
		{"higher tree", extension("ns=2;i=111", deep), `more than 16`},
		{"maybe none", extension("ns=2;i=121", bytesOf(t, u32(0), u8(9))), `good string "{\"a\":9}"`},
		{"maybe all", extension("ns=2;i=121", bytesOf(t, u32(7), u8(9), u8(8), i32(1), i32(2), "é\n")), `good string "{\"a\":9,\"b\":8,\"c\":{\"x\":1,\"y\":2},\"d\":\"é\\u000a\"}"`},
		{"maybe last", extension("ns=2;i=121", bytesOf(t, u32(4), u8(9), "z")), `good string "{\"a\":9,\"d\":\"z\"}"`},
		{"either", extension("ns=2;i=131", bytesOf(t, u32(2), i32(1), i32(2))), `good string "{\"pair\":{\"x\":1,\"y\":2}}"`},
		{"neither", extension("ns=2;i=131", bytesOf(t, u32(0))), `bad "the server holds no value (null)"`},
		{"third", extension("ns=2;i=131", bytesOf(t, u32(3))), `bad "the union Either holds field 3 of 2"`},
		{"no field", extension("ns=2;i=131", bytesOf(t, u32(1<<31))), `bad "the union Either holds field 2147483648 of 2"`},
		{"grid", extension("ns=2;i=141", bytesOf(t, i32(2), i32(2), i32(3), raw{1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0}, u8(7))), `good string "{\"cells\":[[1,2,3],[4,5,6]],\"end\":7}"`},
		{"no grid", extension("ns=2;i=141", bytesOf(t, i32(2), i32(0), i32(3), u8(7))), `good string "{\"cells\":[],\"end\":7}"`},
		{"odd grid", extension("ns=2;i=141", bytesOf(t, i32(2), i32(-1), i32(3), u8(7))), `elements where 1 bytes are left`},
		{"any", extension("ns=2;i=151", bytesOf(t, ua.MustVariant(2.5), i32(2), ua.MustVariant("x"), &ua.Variant{}, pair, ua.MustVariant(uint8(1)), u32(0x80010000),
			ua.NewLocalizedText("t"))), `good string "{\"one\":2.5,\"many\":[\"x\",null],\"what\":{\"x\":1,\"y\":-2},\"number\":1,\"status\":2147549184,\"text\":\"t\"}"`},
		{"open", extension("ns=2;i=171", bytesOf(t, i32(5), i32(6), pair, ua.MustVariant(int64(4)))), `good string "{\"plain\":{\"x\":5,\"y\":6},\"any\":{\"x\":1,\"y\":-2},\"number\":4}"`},
		{"vague", extension("ns=2;i=181", raw{1, 2, 3, 4}), `its field \"x\" may be an array or not`},
		{"unknown field", extension("ns=2;i=191", raw{1, 2, 3, 4}), `its field \"x\": the server does not say what it is`},
		{"unknown", extension("ns=2;i=999", raw{1, 2, 3, 4}), `bad "the server does not describe the structure ns=2;i=999`},
		{"direct", extension("ns=2;i=201", raw{5}), `good string "{\"n\":5}"`},
		{"lies", extension("ns=2;i=203", raw{5}), `does not describe the structure ns=2;i=203`},
		{"short", extension("ns=2;i=101", raw{1, 2, 3, 4, 5}), `the structure Pair is not what the server describes`},
		{"long", extension("ns=2;i=101", raw{1, 2, 3, 4, 5, 6, 7, 8, 9}), `the structure Pair is not what the server describes: 1 bytes are left`},
		{"sub", extension("ns=2;i=211", bytesOf(t, u32(17), i32(2), i32(0), i32(1), 1.5)), `good string "{\"flags\":17,\"level\":[0,1],\"long\":1.5}"`},
		{"empty", extension("ns=2;i=221", raw{}), `good string "{}"`},
		{"bush", extension("ns=2;i=231", raw{}), `more than 16`},
		{"too optional", extension("ns=2;i=241", raw{0, 0, 0, 0}), `33 optional fields`},
		{"none", &ua.ExtensionObject{TypeID: ua.NewTwoByteExpandedNodeID(0)}, `bad "the server holds no value (null)"`},
		{"xml", xml, `is sent as XML, which cannot be read`},
		{"not a number", extension("ns=2;i=151", bytesOf(t, ua.MustVariant([]float64{1e9, math.NaN(), math.Inf(1), math.Inf(-1)}), i32(0), pair, &ua.Variant{}, u32(0), &ua.LocalizedText{})),
			`good string "{\"one\":[1000000000,\"NaN\",\"Infinity\",\"-Infinity\"],\"many\":[],\"what\":{\"x\":1,\"y\":-2},\"number\":null,\"status\":0,\"text\":\"\"}"`},
	}
}

// TestStructures reads structures of each kind from the simulated server, and what may be wrong with them.
func TestStructures(t *testing.T) {
	s, cases := machine(), structureCases(t)
	sim := start(t, s.options(), 0)
	sim.AddVariable("strings", func() any { return []*ua.LocalizedText{ua.NewLocalizedText("low"), ua.NewLocalizedText("high")} })
	var addresses []string
	for _, x := range cases {
		sim.AddVariable(x.name, func() any { return x.value })
		addresses = append(addresses, "ns=2;s="+x.name)
	}
	d := connect(t, connection(sim.Endpoint(), 10*time.Second, addresses...))
	for round := range 2 {
		for i, r := range read(t, d) {
			if got, want := show(r), cases[i].want; got != want && (strings.HasPrefix(want, "good") || r.Quality != telemetry.Bad || !strings.Contains(got, want)) {
				t.Errorf("round %d, %s: %s\nwant %s", round, cases[i].name, got, want)
			}
		}
		if round == 0 {
			s.mu.Lock()
			s.asked = 0
			s.mu.Unlock()
		}
	}
	if s.asked != 0 {
		t.Errorf("the types were asked for again: %d requests", s.asked)
	}
}

// TestPartsShareANode holds that tags which name parts of one node are one node of a request and one item of a subscription, and that
// each has a reading whatever becomes of the node.
func TestPartsShareANode(t *testing.T) {
	t.Run("by node id", func(t *testing.T) { testPartsShareANode(t, "ns=2;s=pair", "ns=2;s=gone", `BadNodeIdUnknown`, 3) })
	t.Run("by browse path", func(t *testing.T) {
		testPartsShareANode(t, "/Objects/2:Machine/2:Pair", "/Objects/2:Machine/2:Gone", `the browse path ends at \"2:Gone\"`, 2)
	})
}

func testPartsShareANode(t *testing.T, pair, missing, why string, nodes int) {
	s := newSpace()
	s.structure(100, "Pair", ua.StructureTypeStructure, "x i=6", "y i=6")
	o := s.options()
	o.Browsable = true
	sim := start(t, o, 0)
	var n int32
	value := func() any { return extension("ns=2;i=101", bytesOf(t, n, -n)) }
	sim.AddVariable("pair", value)
	sim.AddPath("/Objects/2:Machine/2:Pair", "s=pair", value)
	sim.AddVariable("list", func() any { return []int32{1, 2, 3} })
	c := connection(sim.Endpoint(), 10*time.Second, pair, pair, "ns=2;s=list", pair, missing, missing, "ns=2;s=list", "nsu=urn:not;s=x", "nsu=urn:not;s=x")
	for i, field := range []string{"", "x", "[1]", "y", "a", "b", "", "c", "d"} {
		c.Devices[0].Groups[0].Tags[i].Options = map[string]string{"field": field}
	}
	d := connect(t, c)
	want := func(how string, readings []telemetry.Reading, want ...string) {
		t.Helper()
		got := make([]string, len(want))
		for _, r := range readings {
			got[r.Tag] += show(r)
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) || want[i] == "" && got[i] != "" {
				t.Errorf("%s: tag %d: %s\nwant %s", how, i, got[i], want[i])
			}
		}
	}
	gone, nowhere := `bad "`+why, `bad "the server has no namespace \"urn:not\""`
	good := []string{`good string "{\"x\":0,\"y\":0}"`, "good int 0", "good int 2", "good int 0", gone, gone, "good array [int 1, int 2, int 3]", nowhere, nowhere}
	want("read", read(t, d), good...)
	if n := len(d.groups[0][0].ask.nodes); n != nodes {
		t.Errorf("%d nodes are asked for, want %d", n, nodes)
	}
	if got := d.reads(&d.groups[0][0]); len(got) != 1 || !strings.HasPrefix(got[0], "read 4 nodes") {
		t.Errorf("plan %q", got)
	}
	sim.SetStatus("pair", uint32(ua.StatusBadNoCommunication))
	lost := `bad "BadNoCommunication`
	want("lost", read(t, d), append([]string{lost, lost, good[2], lost}, good[4:]...)...)
	sim.SetStatus("pair", 0)
	g := &d.groups[0][0]
	g.setAside(0, "it spoils every answer")
	g.build()
	aside := `bad "it spoils every answer"`
	want("aside", read(t, d), append([]string{aside, aside, good[2], aside}, good[4:]...)...)
	g.ask.retry = time.Now()
	want("rejoined", read(t, d), good...)
	if ok, err := d.Subscribe(t.Context(), drivers.Ref{}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	var first []telemetry.Reading
	next(t, d.Pushed(), func(p *drivers.Push) bool {
		first = append(first, p.Readings...)
		return len(first) >= len(good)
	})
	want("pushed", first, good...)
}

// FuzzStructure holds that whatever description a server gives and whatever bytes follow it end in well-formed JSON or a reason, at a bounded cost.
func FuzzStructure(f *testing.F) {
	s := newSpace()
	s.structure(100, "Pair", ua.StructureTypeStructure, "x i=6", "y i=12")
	s.structure(110, "Tree", ua.StructureTypeStructure, "n i=3", "below i=22 1", "again i=24")
	s.structure(120, "Maybe", ua.StructureTypeStructureWithOptionalFields, "a i=3", "b i=3?", "d i=12 1?")
	s.structure(130, "Either", ua.StructureTypeUnion, "n i=6", "text i=21", "grid i=4 2")
	s.structure(170, "Open", 3, "plain i=22", "number i=11?")
	for _, n := range []int{100, 110, 120, 130, 170} {
		definition := s.attributes[fmt.Sprintf("ns=2;i=%d", n)][ua.AttributeIDDataTypeDefinition].(*ua.ExtensionObject).Value
		f.Add([]byte(bytesOf(f, definition)), []byte{1, 0, 0, 0, 1, 0, 0, 0, 'x', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	}
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, definition, body []byte) {
		before := allocated()
		r := newReader(definition)
		e := newReader(definition)
		if all, reason := e.enumDefinition(); reason == "" && len(all.of) > maxNames {
			t.Fatalf("%d texts", len(all.of))
		}
		enumTexts(definition)
		def, reason := r.structureDefinition()
		if reason != "" {
			return
		}
		made := &dataType{name: "Fuzzed"}
		table := newTypes(nil)
		n := newReader([]byte{2, 2, 0, 7, 0, 0, 0})
		table.encodings[string([]byte{2, 2, 0, 7, 0, 0, 0})] = made
		table.byID[spell(n.NodeID())] = made
		table.until = time.Time{} // nothing can be asked
		table.link = &link{}
		if table.build(t.Context(), made, def); made.reason != "" {
			return
		}
		value := append([]byte{22, 2, 2, 0, 7, 0, 0, 0, 1}, bytesOf(t, uint32(len(body)))...)
		d := converter{texts: statusTexts{}}
		d.decode.types, d.decode.ctx = table, t.Context()
		for _, word := range []string{"", "float64", "json"} {
			want, _ := parseType(word)
			got := d.reading(3, &wire.DataValue{Variant: append(value, body...)}, want)
			wellFormed(t, got, word)
			if got.Quality == telemetry.Good && !json.Valid([]byte(got.Value.Text)) {
				t.Fatalf("%q is no JSON", got.Value.Text)
			}
		}
		for i := range made.structure.fields {
			want := wanted{part: &part{steps: []string{made.structure.fields[i].name, "0"}}}
			wellFormed(t, d.reading(3, &wire.DataValue{Variant: append(value, body...)}, want), "")
		}
		if got, most := allocated()-before, 8*mayAllocate(len(definition)+len(body)); got > most {
			t.Fatalf("%d bytes cost %d", len(definition)+len(body), got)
		}
	})
}

// lookup are the answers of a server that is asked for one structure with an enumeration in it, twice, and for its type in between.
func lookup(t testing.TB) (answers []opcuasim.Answer) {
	s := newSpace()
	s.structure(100, "Pair", ua.StructureTypeStructure, "x i=6", "y ns=2;i=300")
	answer := func(kind uint16, results any) {
		answers = append(answers, opcuasim.Answer{Kind: "MSG", Body: append(opcuasim.ResponseHead(kind, 0), bytesOf(t, results)...)})
	}
	browsed := func(node, name string) {
		to := ua.NewExpandedNodeID(ua.MustParseNodeID(node), "", 0)
		answer(id.BrowseResponse_Encoding_DefaultBinary, []*ua.BrowseResult{{References: []*ua.ReferenceDescription{{ReferenceTypeID: ua.NewTwoByteNodeID(45), NodeID: to,
			BrowseName: &ua.QualifiedName{Name: name}, DisplayName: &ua.LocalizedText{}, TypeDefinition: to}}}})
	}
	read := func(values ...any) {
		var all []*ua.DataValue
		for _, v := range values {
			all = append(all, &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(v)})
		}
		answer(id.ReadResponse_Encoding_DefaultBinary, all)
	}
	pair := extension("ns=2;i=101", raw{1, 0, 0, 0, 2, 0, 0, 0})
	read(pair, 1.5)
	browsed("ns=2;i=100", "Pair")
	read(s.attributes["ns=2;i=100"][ua.AttributeIDDataTypeDefinition], &ua.QualifiedName{Name: "Pair"}, false)
	read(false, &ua.QualifiedName{Name: "State"}, false) // the field's type has no definition
	browsed("i=29", "Enumeration")
	browsed("ns=2;i=301", "EnumStrings")
	read([]*ua.LocalizedText{ua.NewLocalizedText("off"), ua.NewLocalizedText("on"), ua.NewLocalizedText("lost")})
	read(pair, 1.5)
	return answers
}

// looksUp plays a server's words to a driver that reads a structure, its state by name, and a number.
func looksUp(t testing.TB, words []byte) ([]telemetry.Reading, error) {
	c := connection("opc.tcp://host", time.Hour, "ns=2;s=pair", "ns=2;s=number", "ns=2;s=pair")
	c.Devices[0].Groups[0].Tags[2].Options = map[string]string{"field": "y", "enum": "server"}
	made, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	d := made.(*driver)
	d.failures = maxFailures // no census: what follows is told by the number of reads
	if err := d.over(t.Context(), script{Reader: bytes.NewReader(words)}); err != nil {
		return nil, err
	}
	defer d.link.channel.Close()
	if _, err := d.Read(t.Context(), drivers.Ref{}, nil); err != nil {
		return nil, err
	}
	return d.Read(t.Context(), drivers.Ref{}, nil)
}

// FuzzLookup holds that whatever a server says of its data types ends in readings or an error, at a bounded cost.
func FuzzLookup(f *testing.F) {
	before := honestAnswers(1)[:6] // up to the login and the server's limits
	honest := spoken(append(before, lookup(f)...))
	from := len(spoken(before))
	readings, err := looksUp(f, honest)
	if err != nil || len(readings) != 3 || show(readings[0]) != `good string "{\"x\":1,\"y\":2}"` || show(readings[2]) != `good string "lost"` {
		f.Fatalf("an honest server: %v %+v", err, readings)
	}
	f.Add(honest[from:])
	for at := from; at < len(honest); at++ {
		spoilt := bytes.Clone(honest[from:])
		spoilt[at-from] ^= 0xff
		f.Add(spoilt)
	}
	f.Fuzz(func(t *testing.T, words []byte) {
		before := allocated()
		readings, err := looksUp(t, append(honest[:from:from], words...))
		if got := allocated() - before; got > mayAllocate(len(words)) {
			t.Fatalf("%d bytes cost %d", len(words), got)
		}
		if err != nil && (err.Error() == "" || strings.Contains(err.Error(), "BUG")) {
			t.Fatalf("error %q", err)
		}
		for i, r := range readings {
			r.Tag = 3
			if wellFormed(t, r, ""); readings[i].Reason == shared {
				t.Fatalf("tag %d has no reading", i)
			}
		}
	})
}

// TestHistoryOfParts: each of the tags that are parts of a node has the past of its part.
func TestHistoryOfParts(t *testing.T) {
	s := newSpace()
	s.structure(100, "Pair", ua.StructureTypeStructure, "x i=6", "y i=6")
	sim := start(t, s.options(), 0)
	var past []*ua.DataValue
	for i := range int32(3) {
		past = append(past, &ua.DataValue{EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp, SourceTimestamp: noon.Add(time.Duration(i) * time.Second),
			Value: ua.MustVariant(extension("ns=2;i=101", bytesOf(t, i, 10*i)))})
	}
	sim.AddVariable("pair", func() any { return nil })
	sim.SetHistory("pair", past)
	c := connection(sim.Endpoint(), 10*time.Second, "ns=2;s=pair", "ns=2;s=pair")
	for i, field := range []string{"x", "y"} {
		c.Devices[0].Groups[0].Tags[i].Options = map[string]string{"field": field}
	}
	got := map[uint32]string{}
	err := connect(t, c).History(t.Context(), drivers.Ref{}, noon.UnixMicro(), noon.Add(time.Minute).UnixMicro(), func(all []telemetry.Reading) error {
		for _, r := range all {
			got[r.Tag] += showValue(r.Value) + " "
		}
		return nil
	})
	if err != nil || got[0] != "int 0 int 1 int 2 " || got[1] != "int 0 int 10 int 20 " {
		t.Errorf("%v, %v", err, got)
	}
}
