package opcua

import (
	"bytes"
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

// FuzzDetails holds that whatever a server says of units and descriptions is short text or nothing, at a bounded cost.
func FuzzDetails(f *testing.F) {
	answers := honestAnswers(1)[:6] // up to the login and the server's limits
	from := len(spoken(answers))
	answer := func(kind uint16, results any) {
		answers = append(answers, opcuasim.Answer{Kind: "MSG", Body: append(opcuasim.ResponseHead(kind, 0), bytesOf(f, results)...)})
	}
	answer(id.TranslateBrowsePathsToNodeIDsResponse_Encoding_DefaultBinary, []*ua.BrowsePathResult{
		{Targets: []*ua.BrowsePathTarget{{TargetID: ua.NewExpandedNodeID(ua.MustParseNodeID("ns=2;s=a.unit"), "", 0), RemainingPathIndex: 1<<32 - 1}}},
		{StatusCode: ua.StatusBadNoMatch}})
	value := func(v any) *ua.DataValue {
		return &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(v)}
	}
	unit := extension("i=889", &ua.EUInformation{NamespaceURI: "http://www.opcfoundation.org/UA/units/un/cefact", UnitID: 5066068,
		DisplayName: ua.NewLocalizedText("mm"), Description: ua.NewLocalizedText("millimetre")})
	answer(id.ReadResponse_Encoding_DefaultBinary, []*ua.DataValue{value(unit), value(ua.NewLocalizedText(" of the tank ")), value(ua.NewLocalizedText(strings.Repeat("é", 200)))})
	honest := spoken(answers)
	got := detailed(f, honest)
	if len(got) != 2 || got[0] != (telemetry.Details{Unit: "mm", Description: "of the tank"}) || got[1] != (telemetry.Details{Description: strings.Repeat("é", 128)}) {
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
			if len(d.Unit) > maxUnit || len(d.Description) > maxDescription || !utf8.ValidString(d.Unit+d.Description) {
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
