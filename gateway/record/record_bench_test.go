package record

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"millrace/drivers/telemetry"
)

// plantTag is one believable signal: a value that wanders slowly about its middle, as the device shows it.
type plantTag struct {
	kind     telemetry.Kind
	decimals int
	middle   float64
	span     float64 // how far it wanders
	noise    float64 // in units of the last digit
	value    float64
	setpoint bool
}

func (p *plantTag) next(rng *rand.Rand) telemetry.Value {
	switch {
	case p.kind == telemetry.KindBool:
		if rng.IntN(200) == 0 {
			p.value = 1 - p.value
		}
		return telemetry.Bool(p.value != 0)
	case p.kind == telemetry.KindUint && p.noise == 0: // a counter: it runs at its own rate, and now and then stands still
		p.value += math.Floor(p.span * rng.Float64())
		return telemetry.Uint(uint64(p.value))
	case p.setpoint:
		if rng.IntN(500) == 0 {
			p.value = p.middle + math.Round(p.span*(rng.Float64()-0.5))
		}
	default:
		p.value += 0.02*(p.middle-p.value) + 0.01*p.span*rng.NormFloat64()
	}
	ten := math.Pow10(p.decimals)
	x := p.value
	if !p.setpoint {
		x += p.noise * rng.NormFloat64() / ten
	}
	x = math.Round(x*ten) / ten
	switch p.kind {
	case telemetry.KindFloat32:
		return telemetry.Float32(float32(x))
	case telemetry.KindFloat64:
		return telemetry.Float64(x)
	case telemetry.KindInt:
		return telemetry.Int(int64(x))
	}
	return telemetry.Uint(uint64(max(0, x)))
}

// signals are the tags of one machine: of 20, ten float32, three float64, two counters, three booleans, two setpoints.
var signals = []plantTag{
	{kind: telemetry.KindFloat32, decimals: 2, middle: 62, span: 20, noise: 3}, // bearing temperature
	{kind: telemetry.KindFloat32, decimals: 2, middle: 58, span: 20, noise: 3}, // winding temperature
	{kind: telemetry.KindFloat32, decimals: 3, middle: 4.2, span: 1, noise: 4}, // pressure, bar
	{kind: telemetry.KindBool}, // running
	{kind: telemetry.KindFloat32, decimals: 1, middle: 1484, span: 20, noise: 5},   // speed, 1/min
	{kind: telemetry.KindFloat32, decimals: 1, middle: 230.4, span: 4, noise: 2},   // voltage
	{kind: telemetry.KindFloat32, decimals: 2, middle: 13.7, span: 6, noise: 5},    // current
	{kind: telemetry.KindFloat32, decimals: 2, middle: 50, span: 1, noise: 2},      // level, %
	{kind: telemetry.KindUint, middle: 2e6, span: 40},                              // pieces
	{kind: telemetry.KindFloat64, decimals: 2, middle: 9.8, span: 4, noise: 2},     // power, kW
	{kind: telemetry.KindFloat64, decimals: 3, middle: 51234, span: 900, noise: 2}, // energy-like, kWh with three decimals
	{kind: telemetry.KindFloat32, decimals: 1, middle: 75, setpoint: true, span: 20},
	{kind: telemetry.KindFloat32, decimals: 3, middle: 0.87, span: 0.1, noise: 2}, // power factor
	{kind: telemetry.KindBool},
	{kind: telemetry.KindFloat32, decimals: 1, middle: 312, span: 90, noise: 4}, // flow
	{kind: telemetry.KindFloat64, decimals: 1, middle: 21.5, span: 4, noise: 1}, // room temperature
	{kind: telemetry.KindUint, middle: 7e5, span: 1.1},                          // operating seconds
	{kind: telemetry.KindFloat32, decimals: 3, middle: 2.1, span: 2, noise: 20}, // vibration, mm/s
	{kind: telemetry.KindBool}, // fault
	{kind: telemetry.KindFloat32, decimals: 0, middle: 1500, setpoint: true, span: 100},
}

// plant is devices of 100 tags each: five machines of 20 tags. Half of the devices list their tags machine by
// machine, the others signal by signal.
type plant struct {
	rng     *rand.Rand
	devices [][]plantTag
	record  Record
	at      int64
}

func newPlant(devices int) *plant {
	p := &plant{rng: rand.New(rand.NewPCG(1, 2)), at: 1764000000000000}
	for d := range devices {
		tags := make([]plantTag, 100)
		for i := range tags {
			t := signals[i%len(signals)]
			if d%2 == 1 {
				t = signals[i/5]
			}
			t.middle *= 0.8 + 0.4*p.rng.Float64()
			t.value = t.middle
			if t.setpoint {
				t.middle = math.Round(t.middle)
				t.value = t.middle
			}
			tags[i] = t
		}
		p.devices = append(p.devices, tags)
	}
	return p
}

// poll returns the next record of a device. It is valid until the next call.
func (p *plant) poll(device int) *Record {
	p.at += 100000 + p.rng.Int64N(2000)
	p.record.Time = p.at
	p.record.Readings = p.record.Readings[:0]
	for i := range p.devices[device] {
		p.record.Readings = append(p.record.Readings, telemetry.Reading{Tag: uint32(i), Time: p.at, Value: p.devices[device][i].next(p.rng)})
	}
	return &p.record
}

// block returns the records of so many polls of all devices, as a buffer would put them together.
func (p *plant) block(polls int) (block []byte, readings int) {
	var b []byte
	for range polls {
		for d := range p.devices {
			r := p.poll(d)
			b = Append(b[:0], r)
			block = binary.AppendUvarint(block, uint64(len(b)))
			block = append(block, b...)
			readings += len(r.Readings)
		}
	}
	return block, readings
}

// BenchmarkSize reports bytes a reading: encoded, and the block compressed by s2 and by zstd.
func BenchmarkSize(b *testing.B) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		b.Fatal(err)
	}
	for _, polls := range []int{1, 6, 60} {
		b.Run(fmt.Sprintf("records=%d", polls*10), func(b *testing.B) {
			p := newPlant(10)
			raw, withS2, withZstd, readings := 0, 0, 0, 0
			var out []byte
			for b.Loop() {
				b.StopTimer()
				block, n := p.block(polls)
				readings += n
				raw += len(block)
				withS2 += len(s2.Encode(nil, block))
				b.StartTimer()
				out = enc.EncodeAll(block, out[:0])
				withZstd += len(out)
			}
			b.ReportMetric(float64(raw)/float64(readings), "raw-B/reading")
			b.ReportMetric(float64(withS2)/float64(readings), "s2-B/reading")
			b.ReportMetric(float64(withZstd)/float64(readings), "zstd-B/reading")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(readings), "zstd-ns/reading")
		})
	}
}

// shapes are records of one kind, and the believable mix.
func shapes() map[string]*Record {
	rng := rand.New(rand.NewPCG(3, 4))
	fill := func(next func(i int) telemetry.Value) *Record {
		r := &Record{Time: 1764000000000000}
		for i := range 1000 {
			r.Readings = append(r.Readings, telemetry.Reading{Tag: uint32(i), Time: r.Time, Value: next(i)})
		}
		return r
	}
	p := newPlant(10)
	mix := func(d int) *Record {
		r := p.poll(d)
		return &Record{Time: r.Time, Readings: append([]telemetry.Reading(nil), r.Readings...)}
	}
	return map[string]*Record{
		"uint16":  fill(func(int) telemetry.Value { return telemetry.Uint(uint64(rng.IntN(65536))) }),
		"counter": fill(func(i int) telemetry.Value { return telemetry.Uint(uint64(rng.Uint32() >> (i % 20))) }),
		"bool":    fill(func(int) telemetry.Value { return telemetry.Bool(rng.IntN(2) == 0) }),
		"float32": fill(func(int) telemetry.Value { return telemetry.Float32(float32(rng.IntN(10000)) / 100) }),
		"float32mixed": fill(func(i int) telemetry.Value {
			return telemetry.Float32(float32(float64(rng.IntN(10000)) / math.Pow10(i%4)))
		}),
		"float32random": fill(func(int) telemetry.Value {
			return telemetry.Value{Kind: telemetry.KindFloat32, Bits: uint64(rng.Uint32())}
		}),
		"float32unit":   fill(func(int) telemetry.Value { return telemetry.Float32(rng.Float32()) }),
		"float64":       fill(func(int) telemetry.Value { return telemetry.Float64(float64(rng.IntN(10000)) / 100) }),
		"float64mixed":  fill(func(i int) telemetry.Value { return telemetry.Float64(float64(rng.IntN(10000)) / math.Pow10(i%4)) }),
		"float64random": fill(func(int) telemetry.Value { return telemetry.Float64(rng.NormFloat64()) }),
		"plant0":        mix(0),
		"plant1":        mix(1),
	}
}

func BenchmarkAppend(b *testing.B) {
	for name, r := range shapes() {
		b.Run(name, func(b *testing.B) {
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				dst = Append(dst[:0], r)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(r.Readings)), "ns/reading")
			b.ReportMetric(float64(len(dst))/float64(len(r.Readings)), "B/reading")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, r := range shapes() {
		b.Run(name, func(b *testing.B) {
			src := Append(nil, r)
			var got Record
			b.ReportAllocs()
			for b.Loop() {
				if err := Decode(src, &got); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(r.Readings)), "ns/reading")
		})
	}
}
