package opcua

import (
	"testing"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// answers are bodies of the answers that only tools and writes ask for, as the library encodes them.
func answers(f *testing.F) (all [][]byte) {
	add := func(body any) {
		b, err := ua.Encode(body)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	argument := ua.NewExtensionObject(&ua.Argument{Name: "to", DataType: ua.NewNumericNodeID(0, id.Double), ValueRank: -1, ArrayDimensions: []uint32{2}, Description: ua.NewLocalizedText("x")})
	add(ua.MustVariant([]*ua.ExtensionObject{argument, argument}))
	add(struct{ Results []*ua.CallMethodResult }{[]*ua.CallMethodResult{{StatusCode: ua.StatusBadInvalidArgument, InputArgumentResults: []ua.StatusCode{ua.StatusBadTypeMismatch},
		OutputArguments: []*ua.Variant{ua.MustVariant(uint32(7)), ua.MustVariant([]string{"a"})}}}})
	add(struct{ Servers []*ua.ApplicationDescription }{[]*ua.ApplicationDescription{{ApplicationURI: "urn:x", ApplicationName: ua.NewLocalizedText("x"), DiscoveryURLs: []string{"opc.tcp://x"}}}})
	add(struct{ Results []*ua.BrowseResult }{[]*ua.BrowseResult{{References: []*ua.ReferenceDescription{{ReferenceTypeID: ua.NewTwoByteNodeID(45), NodeID: ua.NewExpandedNodeID(ua.NewStringNodeID(1, "Base"), "", 0),
		BrowseName: &ua.QualifiedName{}, DisplayName: &ua.LocalizedText{}, TypeDefinition: ua.NewExpandedNodeID(ua.NewTwoByteNodeID(0), "", 0)}}}}})
	return all
}

func typeNumber(datatype []byte) uint32 {
	r := newReader(datatype)
	return r.NodeID().Number
}

// TestAnswers takes what the library encodes.
func TestAnswers(t *testing.T) {
	var f testing.F
	seeds := answers(&f)
	arguments, err := argumentsIn(seeds[0])
	if err != nil || len(arguments) != 2 || arguments[1].Name != "to" || typeNumber(arguments[1].datatype) != id.Double || arguments[1].rank != -1 || arguments[1].Description != "x" {
		t.Errorf("%+v, %v", arguments, err)
	}
	r := newReader(seeds[1])
	_, err = (&Client{driver: &driver{}}).results(&r, &Method{Inputs: arguments})
	if want := `BadInvalidArgument: one or more arguments are invalid; see the arguments that the method takes; argument "to": BadTypeMismatch: `; err == nil || len(err.Error()) < len(want) || err.Error()[:len(want)] != want {
		t.Error(err)
	}
	r = newReader(seeds[2])
	if found := r.servers(); r.Err != nil || len(found) != 1 || found[0].URI != "urn:x" || found[0].URLs[0] != "opc.tcp://x" {
		t.Errorf("%+v, %v", found, r.Err)
	}
}

// FuzzAnswers holds that whatever a server answers to a tool or a write costs a bounded amount and gives whole values; and that every value
// that is read is written again as the same.
func FuzzAnswers(f *testing.F) {
	for _, b := range append(answers(f), spoiltValues()...) {
		f.Add(b)
	}
	c := &Client{driver: &driver{converter: converter{texts: statusTexts{}}}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := allocated()
		if all, err := argumentsIn(raw); err == nil && len(all) > maxArguments {
			t.Fatalf("%d arguments", len(all))
		}
		r := newReader(raw)
		results, err := c.results(&r, &Method{Inputs: make([]Argument, 3)})
		if err == nil && (r.Err != nil || len(results) > maxArguments) {
			t.Fatalf("%d results, %v", len(results), r.Err)
		}
		for _, v := range results {
			if v.Value.Kind == telemetry.KindArray && !v.Value.Whole() {
				t.Fatalf("a value is not whole: %+v", v)
			}
		}
		r = newReader(raw)
		if all := r.servers(); len(all) > maxServers {
			t.Fatalf("%d servers", len(all))
		}
		sameAgain(t, c, raw)
		if got := allocated() - before; got > 2*mayAllocate(len(raw)) {
			t.Fatalf("%d bytes cost %d", len(raw), got)
		}
	})
}

// sameAgain writes a value of a server as the form that it has, and reads that.
func sameAgain(t *testing.T, c *Client, raw []byte) {
	r := newReader(raw)
	r.Variant(0)
	if r.Err != nil {
		return
	}
	variant := raw[:len(raw)-len(r.B)]
	shape(variant, formIn(variant), variant)
	typeIn(variant)
	value, reason := c.decode.value(variant, wanted{})
	f := formIn(variant)
	if reason != "" || f.kind == wire.TypeVariant || f.writable() != nil || variant[0]&wire.MaskDimensions != 0 {
		return
	}
	b, err := f.appendVariant(nil, value)
	if _, no := err.(unfit); no { // a time that means never, a text that is not UTF-8
		return
	}
	again, reason := c.decode.value(b, wanted{})
	if err != nil || reason != "" || again != value {
		t.Fatalf("%x became %+v, was written as %x (%v) and became %+v %s", variant, value, b, err, again, reason)
	}
}
