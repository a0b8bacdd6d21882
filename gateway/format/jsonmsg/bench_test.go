package jsonmsg

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// BenchmarkRecord reports the cost of one reading in a record of 1,000, by kind of value.
func BenchmarkRecord(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name  string
		value func() telemetry.Value
	}{
		{"uint16", func() telemetry.Value { return telemetry.Uint(uint64(rng.IntN(65536))) }},
		{"int64", func() telemetry.Value { return telemetry.Int(rng.Int64() - 1<<62) }},
		{"float32-2-decimals", func() telemetry.Value { return telemetry.Float32(float32(rng.IntN(20000)) / 100) }},
		{"float32-noise", func() telemetry.Value { return telemetry.Float32(rng.Float32() * 100) }},
		{"float64-2-decimals", func() telemetry.Value { return telemetry.Float64(float64(rng.IntN(200000)) / 100) }},
		{"float64-noise", func() telemetry.Value { return telemetry.Float64(rng.Float64() * 100) }},
		{"bool", func() telemetry.Value { return telemetry.Bool(rng.IntN(2) == 0) }},
		{"string", func() telemetry.Value { return telemetry.String("RUNNING") }},
	} {
		b.Run(c.name, func(b *testing.B) {
			const n = 1000
			schema := &record.Schema{Device: "press-1", Group: "fast"}
			rec := &record.Record{Time: 1766480000123456}
			for i := range n {
				schema.Tags = append(schema.Tags, record.Tag{Name: fmt.Sprintf("tag-%04d", i)})
				rec.Readings = append(rec.Readings, telemetry.Reading{Tag: uint32(i), Time: rec.Time, Value: c.value()})
			}
			s := openStream(b, Options{Gateway: "press-shop"}, schema)
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				dst, _ = s.AppendRecord(dst[:0], 1234, false, rec)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/reading")
			b.ReportMetric(float64(len(dst))/n, "B/reading")
		})
	}
}
