package record

import (
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/drivers/telemetry"
)

const testTime = 1764000000123456

// record returns a record of good readings with these values, tags 0..n-1.
func record(values ...telemetry.Value) *Record {
	r := &Record{Time: testTime}
	for i, v := range values {
		r.Readings = append(r.Readings, telemetry.Reading{Tag: uint32(i), Time: testTime, Value: v})
	}
	return r
}

// sparse returns a record of small integers with these tags.
func sparse(tags ...uint32) *Record {
	r := &Record{Time: testTime}
	for i, tag := range tags {
		r.Readings = append(r.Readings, telemetry.Reading{Tag: tag, Time: testTime, Value: telemetry.Int(int64(i))})
	}
	return r
}

// with changes the readings of a record.
func with(r *Record, change func(i int, rd *telemetry.Reading)) *Record {
	for i := range r.Readings {
		change(i, &r.Readings[i])
	}
	return r
}

func repeat(n int, next func(i int) telemetry.Value) *Record {
	values := make([]telemetry.Value, n)
	for i := range values {
		values[i] = next(i)
	}
	return record(values...)
}

func bits32(b uint32) telemetry.Value {
	return telemetry.Value{Kind: telemetry.KindFloat32, Bits: uint64(b)}
}
func bits64(b uint64) telemetry.Value { return telemetry.Value{Kind: telemetry.KindFloat64, Bits: b} }
func ticks(t int64) telemetry.Value {
	return telemetry.Value{Kind: telemetry.KindTime, Bits: uint64(t)}
}

func stamp(y int) telemetry.Value { return telemetry.Time(time.Date(y, 1, 2, 3, 4, 5, 600, time.UTC)) }

var nested = telemetry.Array([]telemetry.Value{
	telemetry.Array([]telemetry.Value{telemetry.Float32(1.5), {}, telemetry.String("a")}), telemetry.Array(nil),
	telemetry.Int(-1), telemetry.Uint(math.MaxUint64), telemetry.Bool(true), telemetry.Float64(math.Inf(1)), telemetry.String(""), stamp(1601),
})

func reason(i int) string { return "reason " + strconv.Itoa(i) }

// records are the forms that a record can have, by name.
var records = map[string]*Record{
	"empty":         {Time: testTime},
	"time zero":     {},
	"time long":     {Time: 1 << 55},
	"time 7 bytes":  {Time: -1 << 55},
	"time least":    {Time: math.MinInt64, Readings: []telemetry.Reading{{Time: math.MinInt64}, {Tag: 1, Time: math.MaxInt64}}},
	"bools":         record(telemetry.Bool(true), telemetry.Bool(false), telemetry.Bool(true), telemetry.Bool(true), telemetry.Bool(false), telemetry.Bool(false), telemetry.Bool(false), telemetry.Bool(false), telemetry.Bool(true)),
	"ints":          record(telemetry.Int(0), telemetry.Int(-1), telemetry.Int(1), telemetry.Int(127), telemetry.Int(-128), telemetry.Int(-32768), telemetry.Int(1<<31), telemetry.Int(math.MaxInt64), telemetry.Int(math.MinInt64)),
	"uints":         record(telemetry.Uint(0), telemetry.Uint(255), telemetry.Uint(256), telemetry.Uint(65535), telemetry.Uint(65536), telemetry.Uint(1<<32), telemetry.Uint(math.MaxUint64)),
	"uint16s":       repeat(129, func(i int) telemetry.Value { return telemetry.Uint(uint64(i*509) % 65536) }),
	"counters":      repeat(130, func(i int) telemetry.Value { return telemetry.Uint(uint64(i%4) * 0x123456) }),
	"float32s":      record(telemetry.Float32(21.53), telemetry.Float32(-0.1), telemetry.Float32(1484.3), telemetry.Float32(0), telemetry.Float32(75), telemetry.Float32(838860.7), telemetry.Float32(0.0000001)),
	"float64s":      record(telemetry.Float64(21.53), telemetry.Float64(-0.1), telemetry.Float64(51234.567), telemetry.Float64(0), telemetry.Float64(75), telemetry.Float64(1e-14), telemetry.Float64(140737488355327)),
	"float32 odd":   record(bits32(0x80000000), bits32(0x7f800000), bits32(0xff800000), bits32(0x7fc00000), bits32(0x7fa12345), bits32(1), bits32(0x7f7fffff), telemetry.Float32(21.53)),
	"float64 odd":   record(bits64(1<<63), bits64(0x7ff0<<48), bits64(0xfff0<<48), bits64(0x7ff8<<48), bits64(0x7ff4000000012345), bits64(1), bits64(0x7fefffffffffffff), telemetry.Float64(21.53)),
	"float edges":   record(telemetry.Float32(8388607), telemetry.Float32(8388608), telemetry.Float32(-8388608), telemetry.Float64(1<<47), telemetry.Float64(-1<<47), telemetry.Float64(1<<47-1)),
	"float zeros":   record(telemetry.Float32(21.53), telemetry.Float32(21.5), telemetry.Float32(21), telemetry.Float32(1500), telemetry.Float32(1e6), telemetry.Float64(0.25), telemetry.Float64(100), telemetry.Float64(1e22)),
	"float32 third": repeat(100, func(i int) telemetry.Value { return telemetry.Float32(float32(i) / 3) }),
	"float64 third": repeat(100, func(i int) telemetry.Value { return telemetry.Float64(float64(i) / 3) }),
	"strings":       record(telemetry.String(""), telemetry.String("running"), telemetry.String("läuft\x00\xff"), telemetry.String(strings.Repeat("x", 70000))),
	"times":         record(stamp(2026), stamp(1601), stamp(9999), ticks(0), ticks(math.MaxInt64), ticks(math.MinInt64), ticks(testTime*10)),
	"arrays":        record(telemetry.Array(nil), nested, telemetry.Array([]telemetry.Value{nested, nested})),
	"every kind":    record(telemetry.Value{}, telemetry.Bool(true), telemetry.Int(-5), telemetry.Uint(5), telemetry.Float32(5.5), telemetry.Float64(-5.25), telemetry.String("five"), stamp(2026), nested),
	"kinds in turn": repeat(41, func(i int) telemetry.Value {
		return []telemetry.Value{telemetry.Bool(true), telemetry.Float32(1.5), telemetry.Uint(7)}[i%3]
	}),
	"tags from 7": sparse(7, 8, 9),
	"tags, gaps":  sparse(0, 3, 4, 60, 61, 62, 63, 64),
	"tags, far":   sparse(5, 1000, 100000, MaxTags-1),
	"tags, twice": sparse(3, 3, 3, 2, 1, 0, MaxTags-1, 0),
	"tag, last":   sparse(MaxTags - 1),
	"two requests": with(repeat(60, func(i int) telemetry.Value { return telemetry.Uint(uint64(i)) }), func(i int, rd *telemetry.Reading) {
		rd.Time += int64(i / 30 * 20000)
	}),
	"own times": with(repeat(60, func(i int) telemetry.Value { return telemetry.Uint(uint64(i)) }), func(i int, rd *telemetry.Reading) {
		rd.Time += int64(i*i*i) - 5000
	}),
	"dead device": with(repeat(100, func(int) telemetry.Value { return telemetry.Value{} }), func(i int, rd *telemetry.Reading) {
		rd.Quality, rd.Reason = telemetry.Bad, "device does not answer"
	}),
	"some bad": with(repeat(100, func(int) telemetry.Value { return telemetry.Float32(1.5) }), func(i int, rd *telemetry.Reading) {
		switch i % 30 {
		case 5:
			*rd = telemetry.BadReading(i, testTime, "illegal data address")
		case 6:
			rd.Quality, rd.Reason = telemetry.Uncertain, "last usable value"
		case 7:
			rd.Quality = telemetry.Uncertain
		case 8:
			rd.Reason = "good, and yet"
		}
	}),
	"clock unset":      {Time: testTime, ClockUnset: true},
	"clock unset long": {Time: math.MaxInt64, ClockUnset: true, Readings: []telemetry.Reading{{Time: 1, Value: telemetry.Uint(7)}, telemetry.BadReading(1, 2, "no answer")}},
	"last bad": with(repeat(3, func(int) telemetry.Value { return telemetry.Float32(1.5) }), func(i int, rd *telemetry.Reading) {
		rd.Quality = telemetry.Quality(i)
	}),
	"many reasons": with(repeat(80, func(int) telemetry.Value { return telemetry.Value{} }), func(i int, rd *telemetry.Reading) {
		rd.Quality, rd.Reason = telemetry.Bad, reason(i%40)
	}),
	"quality unknown": with(record(telemetry.Bool(true)), func(_ int, rd *telemetry.Reading) { rd.Quality = 255 }),
}

// roundTrip fails unless the record comes back exactly, and returns its binary form.
func roundTrip(t *testing.T, r *Record) []byte {
	t.Helper()
	b := Append([]byte("before"), r)[6:]
	got := Record{Readings: []telemetry.Reading{{Tag: 9, Reason: "old", Quality: telemetry.Bad, Time: 9, Value: telemetry.String("old")}}}
	if err := Decode(b, &got); err != nil {
		t.Fatalf("decode %x: %v", b, err)
	}
	if got.ClockUnset != r.ClockUnset {
		t.Fatalf("clock unset is %v, want %v", got.ClockUnset, r.ClockUnset)
	}
	if got.Time != r.Time || len(got.Readings) != len(r.Readings) {
		t.Fatalf("got time %d with %d readings, want %d with %d", got.Time, len(got.Readings), r.Time, len(r.Readings))
	}
	for i, want := range r.Readings {
		if got.Readings[i] != want {
			t.Fatalf("reading %d:\n got %+v\nwant %+v", i, got.Readings[i], want)
		}
	}
	return b
}

func TestRecordRoundTrip(t *testing.T) {
	for name, r := range records {
		t.Run(name, func(t *testing.T) { roundTrip(t, r) })
	}
}

func TestRecordRoundTripRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 3000 {
		roundTrip(t, randomRecord(rng))
	}
}

// randomRecord is any record within the rules; what is seldom in a plant is frequent in it.
func randomRecord(rng *rand.Rand) *Record {
	r := &Record{Time: int64(rng.Uint64()), ClockUnset: rng.IntN(4) == 0}
	order, kinds, tag := rng.IntN(4), 1+rng.IntN(int(kindEnd)), 0
	for i := range rng.IntN(300) {
		switch order {
		case 0:
			tag = i
		case 1:
			tag += 1 + rng.IntN(3)
		case 2:
			tag += 1 + rng.IntN(300)
		case 3:
			tag = rng.IntN(MaxTags)
		}
		rd := telemetry.Reading{Tag: uint32(tag), Time: r.Time, Value: randomValue(rng, kinds)}
		if rng.IntN(20) == 0 {
			rd.Time = int64(rng.Uint64())
		}
		if rng.IntN(10) == 0 {
			rd.Quality, rd.Reason = telemetry.Quality(rng.IntN(3)), reason(rng.IntN(30))
		}
		r.Readings = append(r.Readings, rd)
	}
	return r
}

func randomValue(rng *rand.Rand, kinds int) telemetry.Value {
	u := rng.Uint64() >> rng.IntN(64)
	decimal := float64(int64(u%2000000)-1000000) / math.Pow10(rng.IntN(10))
	switch telemetry.Kind(rng.IntN(kinds)) {
	case telemetry.KindBool:
		return telemetry.Bool(u&1 == 1)
	case telemetry.KindInt:
		return telemetry.Int(int64(u))
	case telemetry.KindUint:
		return telemetry.Uint(u)
	case telemetry.KindFloat32:
		if rng.IntN(4) == 0 {
			return bits32(uint32(rng.Uint64()))
		}
		return telemetry.Float32(float32(decimal))
	case telemetry.KindFloat64:
		if rng.IntN(4) == 0 {
			return bits64(rng.Uint64())
		}
		return telemetry.Float64(decimal)
	case telemetry.KindString:
		return telemetry.String(strings.Repeat("text", rng.IntN(100)))
	case telemetry.KindTime:
		return ticks(int64(u))
	case telemetry.KindArray:
		return telemetry.Array([]telemetry.Value{telemetry.Int(int64(u)), telemetry.String("abc"), telemetry.Array([]telemetry.Value{telemetry.Float32(1.5)})})
	}
	return telemetry.Value{}
}

// TestRecordUnknownKind: a value that no constructor makes is stored as none, and harms nothing else.
func TestRecordUnknownKind(t *testing.T) {
	r := record(telemetry.Uint(1), telemetry.Value{Kind: 77, Bits: 5, Text: "x"}, telemetry.Uint(2))
	var got Record
	if err := Decode(Append(nil, r), &got); err != nil {
		t.Fatal(err)
	}
	want := record(telemetry.Uint(1), telemetry.Value{}, telemetry.Uint(2))
	if !slices.Equal(got.Readings, want.Readings) {
		t.Errorf("got %+v, want %+v", got.Readings, want.Readings)
	}
}

// TestRecordGolden fails when the encoder chooses other bytes than it did. If TestRecordOlder holds still, that
// may be meant: add the new bytes to the golden ones, remove none.
func TestRecordGolden(t *testing.T) {
	for name, want := range golden {
		if got := hex.EncodeToString(Append(nil, records[name])); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

// TestRecordOlder pins versions 1 and 2. If it fails, buffers in the field cannot be read any more: a changed form
// needs a new version beside this one.
func TestRecordOlder(t *testing.T) {
	for name, stored := range golden {
		b, err := hex.DecodeString(stored)
		if err != nil {
			t.Fatal(err)
		}
		var got Record
		if err := Decode(b, &got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := records[name]; got.Time != want.Time || got.ClockUnset != want.ClockUnset || !slices.Equal(got.Readings, want.Readings) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
		}
	}
}

// TestRecordRandomFloats holds the bar of random floats: raw size and 5 % at 100 tags, all overheads included.
func TestRecordRandomFloats(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for name, next := range map[string]func(int) telemetry.Value{
		"float32 bits": func(int) telemetry.Value { return bits32(rng.Uint32()) },
		"float32 unit": func(int) telemetry.Value { return telemetry.Float32(rng.Float32()) },
		"float32 wide": func(int) telemetry.Value { return telemetry.Float32(1000 * rng.Float32()) },
		"float64 bits": func(int) telemetry.Value { return bits64(rng.Uint64()) },
		"float64 unit": func(int) telemetry.Value { return telemetry.Float64(rng.Float64()) },
	} {
		for range 1000 {
			r := repeat(100, next)
			raw := 100 * floatSize(r.Readings[0].Value.Kind)
			if size := len(roundTrip(t, r)); size > raw+raw/20 {
				t.Errorf("%s: %d bytes, want at most %d", name, size, raw+raw/20)
			}
		}
	}
}

// TestRecordSizes holds the sizes that believable records have, so that a slip in the choice of forms is seen.
func TestRecordSizes(t *testing.T) {
	for name, most := range map[string]int{
		"dead device": 45, // runs: no byte a reading
		"uint16s":     8 + 2 + 1 + 129*2 + 2,
		"bools":       12,
	} {
		if size := len(Append(nil, records[name])); size > most {
			t.Errorf("%s: %d bytes, want at most %d", name, size, most)
		}
	}
	p, size, readings := newPlant(10), 0, 0
	for d := range 10 {
		r := p.poll(d)
		size += len(Append(nil, r))
		readings += len(r.Readings)
	}
	if perReading := float64(size) / float64(readings); perReading > 3 {
		t.Errorf("plant: %.2f bytes a reading before compression, want at most 3", perReading)
	}
}

// TestRecordAllocates nothing but the destination's growth, here none.
func TestRecordAllocates(t *testing.T) {
	for name, r := range records {
		dst := Append(nil, r)
		got := Record{Readings: make([]telemetry.Reading, len(r.Readings))}
		if n := testing.AllocsPerRun(20, func() { dst = Append(dst[:0], r) }); n != 0 {
			t.Errorf("%s: encoding allocates %v times", name, n)
		}
		if n := testing.AllocsPerRun(20, func() {
			if err := Decode(dst, &got); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: decoding allocates %v times", name, n)
		}
	}
}

// TestRecordDamaged: every truncation and every added byte is refused; no changed bit panics or yields a record
// that breaks the rules.
func TestRecordDamaged(t *testing.T) {
	for name, r := range records {
		b := Append(nil, r)
		if len(b) > 2000 {
			continue
		}
		got := Record{Readings: make([]telemetry.Reading, 1, 200)}
		for n := range b {
			if err := Decode(b[:n], &got); !errors.Is(err, ErrRecord) || len(got.Readings) != 0 {
				t.Fatalf("%s: the first %d of %d bytes: error %v, %d readings", name, n, len(b), err, len(got.Readings))
			}
		}
		if err := Decode(append(slices.Clone(b), 0), &got); !errors.Is(err, ErrRecord) {
			t.Fatalf("%s: a byte more: error %v", name, err)
		}
		for bit := range 8 * len(b) {
			c := slices.Clone(b)
			c[bit/8] ^= 1 << (bit % 8)
			checkDecode(t, c)
		}
	}
}

// checkDecode decodes any bytes. They must be refused or give a record that comes back the same.
func checkDecode(t *testing.T, b []byte) {
	t.Helper()
	var got Record
	if err := Decode(b, &got); err != nil {
		if len(got.Readings) != 0 {
			t.Fatalf("%x: refused with %d readings", b, len(got.Readings))
		}
		return
	}
	if cap(got.Readings) > MaxTags {
		t.Fatalf("%x: %d readings", b, cap(got.Readings))
	}
	for i := range got.Readings {
		if rd := &got.Readings[i]; rd.Tag >= MaxTags || rd.Value.Kind >= kindEnd || (rd.Value.Kind == telemetry.KindBool && rd.Value.Bits > 1) {
			t.Fatalf("%x: reading %d is %+v", b, i, rd)
		}
	}
	roundTrip(t, &got)
}

// TestRecordMarksCostNothing: the mark is one byte more, and a record without it is the same as ever.
func TestRecordMarksCostNothing(t *testing.T) {
	for name, r := range records {
		plain := *r
		plain.ClockUnset, plain.Backfill = false, false
		a := Append(nil, &plain)
		for marks := byte(1); marks <= 3; marks++ {
			marked := plain
			marked.ClockUnset, marked.Backfill = marks&1 != 0, marks&2 != 0
			b := Append(nil, &marked)
			if a[0]>>6 != 1 || b[0]>>6 != 2 || b[1] != marks || a[0]&0x3f != b[0]&0x3f || !slices.Equal(a[1:], b[2:]) {
				t.Errorf("%s: without the marks %x, with them %x", name, a, b)
			}
			roundTrip(t, &marked)
		}
	}
}

func TestRecordHostile(t *testing.T) {
	const at = "00000000000000" // the time
	for name, text := range map[string]string{
		"nothing":                  "",
		"version 0":                "00" + at + "00",
		"version 2, no mark":       "8000" + at + "00",
		"version 2, newer mark":    "8004" + at + "00",
		"version 2, one of both":   "8005" + at + "00",
		"version 2, nothing more":  "80",
		"version 3":                "c0" + at + "00",
		"time too short":           "40" + at[2:],
		"long time too short":      "60" + at,
		"both tag flags":           "43" + at + "01" + "0000" + "00",
		"too many readings":        "40" + at + "818008" + "00",
		"count over 64 bits":       "40" + at + "ffffffffffffffffffff01" + "00",
		"kind array too short":     "44" + at + "04" + "00",
		"kind array, unknown":      "44" + at + "01" + "09",
		"run too long":             "40" + at + "01" + "20",
		"unknown kind":             "40" + at + "01" + "09",
		"tag over MaxTags":         "42" + at + "01" + "808010" + "00",
		"tag below 0":              "42" + at + "01" + "01" + "00",
		"bitmap over MaxTags":      "41" + at + "01" + "ffff07" + "01" + "02" + "00",
		"bitmap too long":          "41" + at + "01" + "ffff07" + "02" + "0100" + "00",
		"bitmap with more tags":    "41" + at + "01" + "00" + "01" + "03" + "00",
		"bitmap with less tags":    "41" + at + "02" + "00" + "01" + "01" + "00",
		"time run of length 0":     "48" + at + "01" + "00" + "0002",
		"reason not yet known":     "50" + at + "01" + "00" + "010202",
		"reason too long":          "50" + at + "01" + "00" + "0102017f",
		"sizes form 11":            "40" + at + "01" + "03" + "0b" + "00" + "00",
		"sizes form raw, uint":     "40" + at + "01" + "03" + "0a" + "00" + "00",
		"size 9":                   "40" + at + "01" + "03" + "09" + "08" + "000000000000000000",
		"float32 of five bytes":    "40" + at + "01" + "04" + "0402" + "0000000000",
		"float32, sizes of 4 bits": "40" + at + "01" + "04" + "0902" + "00" + "00",
		"exponents form 17":        "40" + at + "01" + "05" + "0011" + "00",
		"text, no bytes":           "40" + at + "01" + "06" + "05",
		"text too long":            "40" + at + "01" + "06" + "05" + "61",
		"array, wrong count":       "40" + at + "01" + "08" + "02" + "02" + "0101",
		"array, unknown kind":      "40" + at + "01" + "08" + "01" + "02" + "0901",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got Record
		if err := Decode(b, &got); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: error %v, readings %+v", name, err, got.Readings)
		}
	}
}

func TestRecordNesting(t *testing.T) {
	v := telemetry.Array(nil)
	for range telemetry.MaxNesting - 1 {
		v = telemetry.Array([]telemetry.Value{v})
	}
	roundTrip(t, record(v))
	var got Record
	if err := Decode(Append(nil, record(telemetry.Array([]telemetry.Value{v}))), &got); !errors.Is(err, ErrRecord) {
		t.Errorf("%d deep: error %v", telemetry.MaxNesting+1, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range records {
		f.Add(Append(nil, r))
	}
	f.Fuzz(checkDecode)
}

func FuzzRecordRoundTrip(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) { roundTrip(t, randomRecord(rand.New(rand.NewPCG(a, b)))) })
}
