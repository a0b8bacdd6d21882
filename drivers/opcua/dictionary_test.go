package opcua

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"

	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// schemaText is a type dictionary as a server before OPC UA 1.04 has it.
const schemaText = `<?xml version="1.0" encoding="utf-8"?>
<opc:TypeDictionary xmlns:opc="http://opcfoundation.org/BinarySchema/" xmlns:ua="http://opcfoundation.org/UA/" xmlns:tns="urn:x" TargetNamespace="urn:x" DefaultByteOrder="LittleEndian">
 <opc:Import Namespace="http://opcfoundation.org/UA/"/>
 <opc:EnumeratedType Name="Mode" LengthInBits="32"><opc:EnumeratedValue Name="Off" Value="0"/><opc:EnumeratedValue Name="On" Value="1"/></opc:EnumeratedType>
 <opc:StructuredType Name="Step" BaseType="ua:ExtensionObject">
  <opc:Documentation>one of them</opc:Documentation>
  <opc:Field Name="noteSpecified" TypeName="opc:Bit"/><opc:Field Name="Reserved1" TypeName="opc:Bit" Length="31"/>
  <opc:Field Name="time" TypeName="opc:Double"/><opc:Field Name="note" TypeName="opc:CharArray" SwitchField="noteSpecified"/>
 </opc:StructuredType>
 <opc:StructuredType Name="Amount" BaseType="ua:Union">
  <opc:Field Name="SwitchField" TypeName="opc:UInt32"/>
  <opc:Field Name="count" TypeName="opc:Int32" SwitchField="SwitchField" SwitchValue="1"/><opc:Field Name="text" TypeName="ua:LocalizedText" SwitchField="SwitchField" SwitchValue="2"/>
 </opc:StructuredType>
 <opc:StructuredType Name="Recipe" BaseType="ua:ExtensionObject">
  <opc:Field Name="mode" TypeName="tns:Mode"/><opc:Field Name="NoOfSteps" TypeName="opc:Int32"/><opc:Field Name="steps" TypeName="tns:Step" LengthField="NoOfSteps"/>
  <opc:Field Name="amount" TypeName="tns:Amount"/><opc:Field Name="any" TypeName="ua:Variant"/>
 </opc:StructuredType>
 <opc:StructuredType Name="Foreign"><opc:Field Name="x" TypeName="ua:Whatever"/></opc:StructuredType>
 <opc:StructuredType Name="Bits"><opc:Field Name="x" TypeName="opc:Bit" Length="8"/></opc:StructuredType>
</opc:TypeDictionary>`

// TestDictionary reads structures that only a type dictionary describes.
func TestDictionary(t *testing.T) {
	s := newSpace()
	names := map[string]string{"ns=2;i=401": "Recipe", "ns=2;i=402": "Foreign", "ns=2;i=403": "Bits", "ns=2;i=404": "Nothing"}
	for encoding, name := range names {
		s.refer(encoding, id.HasDescription, false, "ns=2;s="+name, name)
		s.refer("ns=2;s="+name, id.HasComponent, true, "ns=2;s=dictionary", "x")
	}
	sim := start(t, s.options(), 0)
	for _, name := range names {
		sim.AddVariable(name, func() any { return name })
	}
	sim.AddVariable("dictionary", func() any { return []byte(schemaText) })
	body := bytesOf(t, uint32(1), uint32(2), uint32(0), 1.5, uint32(1), 2.5, "x", uint32(1), int32(7), raw{1, 1})
	values := map[string]any{"recipe": extension("ns=2;i=401", body), "foreign": extension("ns=2;i=402", raw{1}), "bits": extension("ns=2;i=403", raw{1}), "nothing": extension("ns=2;i=404", raw{1})}
	for name, v := range values {
		sim.AddVariable(name, func() any { return v })
	}
	c := connection(sim.Endpoint(), 10*time.Second, "ns=2;s=recipe", "ns=2;s=recipe", "ns=2;s=recipe", "ns=2;s=foreign", "ns=2;s=bits", "ns=2;s=nothing")
	c.Devices[0].Groups[0].Tags[1].Options = map[string]string{"field": "steps[1].note"}
	c.Devices[0].Groups[0].Tags[2].Options = map[string]string{"field": "mode", "enum": "server"}
	for i, r := range read(t, connect(t, c)) {
		want := []string{`good string "{\"mode\":1,\"steps\":[{\"time\":1.5},{\"time\":2.5,\"note\":\"x\"}],\"amount\":{\"count\":7},\"any\":true}"`, `good string "x"`, `good string "On"`,
			`bad "the server does not describe the structure ns=2;i=402: its field \"x\": the type dictionary has no ua:Whatever"`,
			`bad "the server does not describe the structure ns=2;i=403: the type dictionary has a mask of 8 bits, not 32"`,
			`bad "the server does not describe the structure ns=2;i=404: the type dictionary has no Nothing"`}[i]
		if got := show(r); got != want {
			t.Errorf("tag %d: %s\nwant %s", i, got, want)
		}
	}
}

// FuzzDictionary holds that whatever type dictionary a server has, and whatever bytes follow it, end in well-formed JSON or a reason, at a bounded cost.
func FuzzDictionary(f *testing.F) {
	f.Add([]byte(schemaText), "Recipe", []byte{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1})
	f.Add([]byte(schemaText), "Step", []byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 'x'})
	f.Add([]byte(`<StructuredType Name="A"><Field Name="a" TypeName="A"/></StructuredType>`), "A", []byte{})
	f.Fuzz(func(t *testing.T, text []byte, name string, body []byte) {
		before := allocated()
		all, reason := parseDictionary(text)
		if reason != "" {
			return
		}
		made := all.dataType(name)
		if (made.reason == "") == (made.structure == nil && made.builtin == 0) {
			t.Fatalf("%q is neither a type nor has it a reason: %+v", name, made)
		}
		if made.structure == nil || made.reason != "" {
			return
		}
		d := converter{texts: statusTexts{}}
		d.decode.types = newTypes(&link{})
		d.decode.types.encodings["\x02\x02\x00\x07\x00\x00\x00"] = made
		value := append(append([]byte{22, 2, 2, 0, 7, 0, 0, 0, 1}, bytesOf(t, uint32(len(body)))...), body...)
		got := d.reading(3, &wire.DataValue{Variant: value}, wanted{})
		if wellFormed(t, got, ""); got.Quality == telemetry.Good && !json.Valid([]byte(got.Value.Text)) {
			t.Fatalf("%q is no JSON", got.Value.Text)
		}
		if got, most := allocated()-before, 2*mayAllocate(len(text)+len(body)); got > most {
			t.Fatalf("%d bytes cost %d", len(text)+len(body), got)
		}
	})
}
