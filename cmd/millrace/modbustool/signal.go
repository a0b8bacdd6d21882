package modbustool

import (
	"hash/fnv"
	"math"
	"strings"
	"time"

	"millrace/drivers/modbus"
	"millrace/drivers/telemetry"
)

// shape is a believable signal: it swings around a middle, or counts up.
type shape struct{ middle, swing, perSecond float64 }

// shapes are by the tag's unit.
var shapes = map[string]shape{
	"V": {230, 3, 0}, "kV": {20, 0.2, 0}, "A": {12, 4, 0}, "mA": {12, 3, 0}, "W": {2700, 900, 0}, "kW": {2.7, 0.9, 0},
	"VA": {2900, 900, 0}, "kVA": {2.9, 0.9, 0}, "var": {500, 200, 0}, "kvar": {0.5, 0.2, 0}, "Hz": {50, 0.03, 0},
	"°C": {23, 4, 0}, "%": {45, 20, 0}, "bar": {6, 0.5, 0}, "1/min": {1450, 30, 0}, "Nm": {25, 8, 0}, "s": {30, 10, 0},
	"Wh": {1_284_500, 0, 0.75}, "kWh": {1284.5, 0, 0.00075}, "MWh": {12.5, 0, 0.00000075}, "varh": {210_000, 0, 0.15}, "kvarh": {210, 0, 0.00015},
	"VAh": {1_400_000, 0, 0.8}, "kVAh": {1400, 0, 0.0008}, "h": {4120, 0, 1.0 / 3600}, "m³": {870, 0, 0.002},
}

// simulatedPower is what the exponent of ten beside a raw value reads, as in SunSpec.
const simulatedPower = -1

// shapeOf finds a shape for a tag.
func shapeOf(t *telemetry.Tag) shape {
	name := strings.ToLower(t.Name)
	switch s, ok := shapes[t.Unit]; {
	case ok:
		return s
	case strings.HasSuffix(name, "_sf"):
		return shape{simulatedPower, 0, 0}
	case strings.Contains(name, "factor") || strings.Contains(name, "cos"):
		return shape{0.92, 0.05, 0}
	case strings.Contains(name, "count") || strings.Contains(name, "total"):
		return shape{1200, 0, 0.5}
	}
	return shape{100, 40, 0}
}

// tagSignal is the simulated value of one tag.
type tagSignal struct {
	tag   telemetry.Tag
	place modbus.Place
	shape shape
	phase float64 // so that the tags of a device do not all swing together
	last  []byte  // what was put into the device, nil = nothing yet
	value telemetry.Value
	mine  bool // nobody else wrote there
}

func newSignal(t telemetry.Tag, p modbus.Place) *tagSignal {
	h := fnv.New32a()
	h.Write([]byte(t.Name))
	return &tagSignal{tag: t, place: p, shape: shapeOf(&t), phase: float64(h.Sum32()%628) / 100, mine: true}
}

// values returns what the tag may read at a moment, raw, the best first: what its type or its bounds do not take, the next one
// may be.
func (s *tagSignal) values(at time.Time, since time.Duration) []telemetry.Value {
	seconds := since.Seconds()
	if numbers := s.place.Numbers(); len(numbers) > 0 {
		return []telemetry.Value{telemetry.Int(numbers[int(seconds/10+s.phase)%len(numbers)]), telemetry.Int(numbers[0])}
	}
	switch s.place.Type().Kind() {
	case telemetry.KindBool:
		return []telemetry.Value{telemetry.Bool(math.Sin(seconds/7+s.phase) > 0)}
	case telemetry.KindTime:
		return []telemetry.Value{telemetry.Time(at.Truncate(time.Second))}
	case telemetry.KindString:
		return []telemetry.Value{telemetry.String(strings.Repeat("5A", s.place.Length())), telemetry.String("SIM-1"[:min(5, s.place.Length())])}
	}
	if s.tag.Options["flags"] != "" {
		return []telemetry.Value{telemetry.Int(0)}
	}
	return s.numbers(seconds)
}

// numbers returns raw numbers: that of the shape, and smaller ones for types and bounds that do not hold it.
func (s *tagSignal) numbers(seconds float64) (list []telemetry.Value) {
	wave := math.Sin(seconds/11+s.phase) + 0.1*math.Sin(3*seconds+s.phase)
	scale := s.tag.Scale
	if scale == 0 {
		scale = 1
	}
	value := s.shape.middle + s.shape.swing*wave + s.shape.perSecond*seconds
	for _, v := range []float64{value, value / 100, value / 10000, 0} {
		raw := (v - s.tag.Offset) / scale
		kind := s.place.Type().Kind()
		if kind == telemetry.KindFloat32 || kind == telemetry.KindFloat64 {
			list = append(list, telemetry.Float64(raw))
			continue
		}
		list = append(list, telemetry.Int(int64(math.Round(raw))), telemetry.Int(int64(math.Round(raw))+1))
	}
	return list
}
