package opcua

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// detailed plays a server's words to a driver that asks what two tags are.
func detailed(t testing.TB, words []byte) []telemetry.Details {
	made, err := newDriver(connection("opc.tcp://host", time.Hour, "ns=2;s=a", "ns=2;s=b"))
	if err != nil {
		t.Fatal(err)
	}
	d := made.(*driver)
	d.failures = maxFailures // no census: what follows is told by the number of reads
	if err := d.over(t.Context(), script{Reader: bytes.NewReader(words)}); err != nil {
		t.Fatal(err)
	}
	defer d.link.channel.Close()
	g := &d.groups[0][0]
	for range 3 {
		d.link.types.details(t.Context(), g, time.Now())
	}
	return d.Details(drivers.Ref{})
}

func limits(low, high float64) *ua.ExtensionObject {
	return extension("i=886", &ua.Range{Low: low, High: high})
}

// TestRangeIn: what is no range, or one that says nothing, is none.
func TestRangeIn(t *testing.T) {
	short := bytesOf(t, ua.MustVariant(extension("i=886", raw(make([]byte, 15)))))
	for _, c := range []struct {
		variant []byte
		want    telemetry.Range
	}{
		{bytesOf(t, ua.MustVariant(limits(-0.5, 20))), telemetry.Range{Low: -0.5, High: 20}},
		{bytesOf(t, ua.MustVariant(limits(0, 0))), telemetry.Range{}},
		{bytesOf(t, ua.MustVariant(limits(5, 5))), telemetry.Range{}},
		{bytesOf(t, ua.MustVariant(limits(20, -0.5))), telemetry.Range{}},
		{bytesOf(t, ua.MustVariant(limits(math.Inf(-1), 5))), telemetry.Range{}},
		{bytesOf(t, ua.MustVariant(limits(5, math.Inf(1)))), telemetry.Range{}},
		{bytesOf(t, ua.MustVariant(limits(math.NaN(), 5))), telemetry.Range{}},
		{bytesOf(t, ua.MustVariant(limits(5, math.NaN()))), telemetry.Range{}},
		{bytesOf(t, ua.MustVariant(extension("i=889", &ua.Range{Low: 1, High: 2}))), telemetry.Range{}},
		{bytesOf(t, ua.MustVariant(2.5)), telemetry.Range{}},
		{short, telemetry.Range{}}, {short[:3], telemetry.Range{}}, {nil, telemetry.Range{}},
	} {
		if got := rangeIn(c.variant); got != c.want {
			t.Errorf("%x: %v, want %v", c.variant, got, c.want)
		}
	}
}

// TestMachineDetails: the machine's units, ranges and descriptions come from a server that takes few nodes in a request too, and of each tag only what the config does not say.
func TestMachineDetails(t *testing.T) {
	for name, o := range map[string]opcuasim.Options{"any": {}, "one": {MaxNodesPerRead: 1, MaxPathsPerCall: 1}, "hidden": {MaxNodesPerRead: 2, HideLimit: true, MaxPathsPerCall: 1}} {
		o.Browsable = true
		s := start(t, o, 1)
		s.AddMachineTree(time.Now())
		c := connection(s.Endpoint(), 10*time.Second, "ns=2;s=Spindle.Speed", "ns=2;s=Spindle.Load", "ns=2;s=Program.Name")
		tags := c.Devices[0].Groups[0].Tags
		tags[1].Scale, tags[1].Description = 0.01, "as configured"
		d := connect(t, c)
		g := &d.groups[0][0]
		read(t, d)
		for range 30 {
			d.link.types.details(t.Context(), g, time.Now())
		}
		want := []telemetry.Details{{Unit: "rev/min", Description: "speed of the spindle", Range: telemetry.Range{High: 9000}},
			{Range: telemetry.Range{High: 100}}, {Description: "program under way"}}
		if got := d.Details(drivers.Ref{}); !slices.Equal(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// FuzzDetails holds that whatever a server says of units, ranges and descriptions is short text, a range or nothing, at a bounded cost.
func FuzzDetails(f *testing.F) {
	answers := honestAnswers(1)[:6] // up to the login and the server's limits
	from := len(spoken(answers))
	answer := func(kind uint16, results any) {
		answers = append(answers, opcuasim.Answer{Kind: "MSG", Body: append(opcuasim.ResponseHead(kind, 0), bytesOf(f, results)...)})
	}
	found := func(node string) *ua.BrowsePathResult {
		return &ua.BrowsePathResult{Targets: []*ua.BrowsePathTarget{{TargetID: ua.NewExpandedNodeID(ua.MustParseNodeID(node), "", 0), RemainingPathIndex: 1<<32 - 1}}}
	}
	answer(id.TranslateBrowsePathsToNodeIDsResponse_Encoding_DefaultBinary, []*ua.BrowsePathResult{
		found("ns=2;s=a.unit"), found("ns=2;s=a.range"), {StatusCode: ua.StatusBadNoMatch}, found("ns=2;s=b.range")})
	value := func(v any) *ua.DataValue {
		return &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(v)}
	}
	unit := extension("i=889", &ua.EUInformation{NamespaceURI: "http://www.opcfoundation.org/UA/units/un/cefact", UnitID: 5066068,
		DisplayName: ua.NewLocalizedText("mm"), Description: ua.NewLocalizedText("millimetre")})
	answer(id.ReadResponse_Encoding_DefaultBinary, []*ua.DataValue{value(unit), value(limits(-5, 2000)),
		value(ua.NewLocalizedText(" of the tank ")), value(limits(3, 3)), value(ua.NewLocalizedText(strings.Repeat("é", 200)))})
	honest := spoken(answers)
	got := detailed(f, honest)
	if len(got) != 2 || got[0] != (telemetry.Details{Unit: "mm", Description: "of the tank", Range: telemetry.Range{Low: -5, High: 2000}}) || got[1] != (telemetry.Details{Description: strings.Repeat("é", 128)}) {
		f.Fatalf("%+v", got)
	}
	f.Add(honest[from:])
	for at := from; at < len(honest); at++ {
		spoilt := bytes.Clone(honest[from:])
		spoilt[at-from] ^= 0xff
		f.Add(spoilt)
	}
	f.Fuzz(func(t *testing.T, words []byte) {
		before := allocated()
		all := detailed(t, append(honest[:from:from], words...))
		if got := allocated() - before; got > mayAllocate(len(words)) {
			t.Fatalf("%d bytes cost %d", len(words), got)
		}
		for _, d := range all {
			if len(d.Unit) > maxUnit || len(d.Description) > maxDescription || !utf8.ValidString(d.Unit+d.Description) ||
				d.Range != (telemetry.Range{}) && !d.Range.Known() {
				t.Fatalf("%+v", d)
			}
		}
	})
}

// TestDetailsAreGivenUp holds that a server which ends the connection when it is asked is not asked for ever, and that the others go on.
func TestDetailsAreGivenUp(t *testing.T) {
	made, err := newDriver(connection("opc.tcp://host", time.Hour, "ns=2;s=a"))
	if err != nil {
		t.Fatal(err)
	}
	d := made.(*driver)
	d.failures = maxFailures // no census: what follows is told by the number of reads
	g := &d.groups[0][0]
	words := spoken(honestAnswers(1)[:6])
	asked := 0
	for ; asked < 10 && !g.about.over; asked++ {
		if err := d.over(t.Context(), script{Reader: bytes.NewReader(words)}); err != nil {
			t.Fatal(err)
		}
		if g.about.due(time.Now()) {
			t.Fatal("it is asked before its values have come")
		}
		d.link.types.details(t.Context(), g, time.Now())
		d.link.channel.Close()
	}
	if asked != maxLapses+1 || d.Details(drivers.Ref{}) != nil {
		t.Errorf("asked in %d sessions", asked)
	}
}
