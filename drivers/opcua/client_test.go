package opcua

import (
	"slices"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// TestValues shows what a server says of nodes: also a time of 1970, no time, and what only one of the nodes makes impossible.
func TestValues(t *testing.T) {
	s := start(t, opcuasim.Options{MaxNodesPerRead: 1000, OnRead: func(ids []string) uint32 {
		if slices.Contains(ids, "s=spoils") {
			return uint32(ua.StatusBadEncodingError)
		}
		return 0
	}}, 300)
	s.AddVariable("epoch", func() any {
		return &ua.DataValue{EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp | ua.DataValueStatusCode, Value: ua.MustVariant([]uint16{7}),
			SourceTimestamp: time.Unix(0, 0), Status: ua.StatusUncertainLastUsableValue}
	})
	s.AddVariable("spoils", func() any { return 1.0 })
	s.AddVariable("null", func() any { return nil })
	addresses := append(variables(300), "ns=2;s=epoch", "ns=2;s=spoils", "nsu=urn:nobody;s=x", "ns=2;s=null", "ns=2;s=none")
	c, err := Dial(t.Context(), connection(s.Endpoint(), 10*time.Second, addresses...))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Values(t.Context())
	if err != nil || len(all) != len(addresses) {
		t.Fatal(len(all), err)
	}
	for i, v := range all[:300] {
		if v.Value != telemetry.Float64(float64(i)) || v.Type != "Double" || v.Status != "Good" || v.Reason != "" || time.Since(v.Source).Abs() > time.Hour || v.Server.IsZero() {
			t.Errorf("v%d: %+v", i, v)
		}
	}
	for i, want := range []NodeValue{
		{Type: "UInt16[]", Value: telemetry.Array([]telemetry.Value{telemetry.Uint(7)}), Status: "UncertainLastUsableValue", Source: time.Unix(0, 0).UTC()},
		{Reason: "BadEncodingError: encoding halted because of invalid data in the objects being serialized"},
		{Reason: `the server has no namespace "urn:nobody"`},
		{Status: "Good", Reason: "the server holds no value (null)"},
		{Status: "BadNodeIdUnknown", Reason: "the node id refers to a node that does not exist in the server address space"},
	} {
		got := all[300+i]
		if want.Status != "UncertainLastUsableValue" {
			got.Source, got.Server = time.Time{}, time.Time{}
		} else {
			got.Reason = ""
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", addresses[300+i], got, want)
		}
	}
}
