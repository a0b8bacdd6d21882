package opcua

import (
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

func TestConformance(t *testing.T) {
	s := start(t, opcuasim.Options{MaxNodesPerRead: 20, Browsable: true}, 48)
	s.AddMachine(time.Now())
	s.AddWritable("written", opcuasim.Writable{Value: 1.5})
	s.AddWritable("list", opcuasim.Writable{Value: []int32{1}})
	var called atomic.Int32
	s.AddMethod("Double", opcuasim.Method{
		Inputs:  []opcuasim.Argument{{Name: "n", Type: 7, Rank: -1}, {Name: "list", Type: 4, Rank: 1}}, // UInt32, Int16
		Outputs: []opcuasim.Argument{{Name: "twice", Type: 7, Rank: -1}},
		Call: func(args []any) ([]any, uint32) {
			called.Add(1)
			return []any{2 * args[0].(uint32)}, 0
		},
	})
	p, err := opcuasim.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	good := connection(p.Endpoint(), time.Second, append(variables(50), "ns=2;s=Spindle.Speed", "ns=2;s=Axis.Position", "nsu=urn:nobody;s=x", "ns=2;s=written", "ns=2;s=list")...)
	bad := connection("http://host", time.Second, "ns=2;s=ok", "ns=2", "ns=2;i=x")
	bad.Devices[0].Options = map[string]string{"security_policy": "Sign", "password": "x"}
	bad.Devices[0].Groups[0].Tags[0].Type = "real"
	drivertest.Run(t, drivertest.Suite{
		Protocol:   Protocol(),
		Connection: good,
		BadTags:    []int{48, 49, 52},
		Writes:     []drivers.Write{{Tag: 53, Value: telemetry.Float64(77)}, {Tag: 54, Value: telemetry.Array([]telemetry.Value{telemetry.Int(7), telemetry.Int(8)})}},
		Refused: []drivers.Write{{Tag: 0, Value: telemetry.Float64(1)}, {Tag: 48, Value: telemetry.Float64(1)}, {Tag: 52, Value: telemetry.Float64(1)},
			{Tag: 53, Value: telemetry.String("x")}},
		Calls: &drivertest.Calls{
			Method:     drivers.Method{Object: "i=85", Node: "Double"},
			Args:       []telemetry.Value{telemetry.Uint(21), telemetry.Array([]telemetry.Value{telemetry.Int(-1)})},
			Results:    []telemetry.Value{telemetry.Uint(42)},
			Missing:    drivers.Method{Object: "i=85", Node: "Triple"},
			Impossible: []drivers.Method{{Node: "Double"}, {Object: "Objects", Node: "Double"}, {Object: "i=85", Node: "ns=2;s=Double"}, {Object: "/Objects", Node: "Double"}},
			Seen:       func() int { return int(called.Load()) },
		},
		Browsable: []string{"nsu=urn:millrace:machine;s=Spindle.Speed"},
		Mistaken:  bad,
		Mistakes:  6,
		Down:      func() { p.Refuse(true) },
		Up: func() {
			if err := p.Refuse(false); err != nil {
				t.Error(err)
			}
		},
		Freeze: func() { p.Silence(true) },
		Thaw:   func() { p.Silence(false) },
	})
}

func BenchmarkRead1000(b *testing.B) {
	s := start(b, opcuasim.Options{MaxNodesPerRead: 1000}, 1000)
	d := connect(b, connection(s.Endpoint(), 10*time.Second, variables(1000)...))
	var dst []telemetry.Reading
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = d.Read(b.Context(), drivers.Ref{}, dst[:0]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/value")
}
