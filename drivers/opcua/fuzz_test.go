package opcua

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// allocated returns the bytes that have ever been allocated.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// mayAllocate is the most that n bytes of a server may cost us: scratch memory for the largest array, which is
// kept, and a fixed number of copies.
func mayAllocate(n int) uint64 { return 16<<20 + 32*uint64(n) }

// FuzzReading holds that whatever a server sends becomes a well-formed reading, of every type, at a bounded
// cost; and that values which the library decodes too are the same.
func FuzzReading(f *testing.F) {
	files, err := filepath.Glob("testcases/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("%d seeds: %v", len(files), err)
	}
	for _, file := range files {
		c := parseCase(f, file)
		raw, err := hex.DecodeString(strings.ReplaceAll(c["bytes"], " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	for _, raw := range spoiltValues() {
		f.Add(raw)
	}
	words := strings.Fields(typeWords)
	d := driver{converter: converter{texts: statusTexts{}}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := allocated()
		r := newReader(raw)
		v := r.DataValue(0)
		first := d.reading(3, &v, wanted{})
		if got := allocated() - before; got > mayAllocate(len(raw)) {
			t.Fatalf("%d bytes cost %d", len(raw), got)
		}
		if r.Err != nil {
			return
		}
		for _, word := range words {
			want, _ := parseType(word)
			wellFormed(t, d.reading(3, &v, want), word)
		}
		wellFormed(t, first, "")
		likeTheLibrary(t, raw, len(raw)-len(r.B), first)
	})
}

// spoiltValues are the first values of the tricks that spoil one.
func spoiltValues() (all [][]byte) {
	for _, trick := range opcuasim.Tricks() {
		if !strings.HasPrefix(trick.Name, "value: ") {
			continue
		}
		var b bytes.Buffer
		head := opcuasim.ReadBody()
		trick.Play(&b, opcuasim.Answer{Kind: "MSG", Nodes: 1, Body: opcuasim.ReadBody(opcuasim.Number(1))})
		if b.Len() < 1<<16 {
			all = append(all, b.Bytes()[wire.HeadSize+len(head)-4:])
		}
	}
	return all
}

func wellFormed(t *testing.T, r telemetry.Reading, word string) {
	want, _ := parseType(word)
	switch {
	case r.Tag != 3:
		t.Fatalf("tag %d", r.Tag)
	case r.Quality == telemetry.Bad && (r.Reason == "" || r.Value != telemetry.Value{}):
		t.Fatalf("type %q: bad with value %+v, reason %q", word, r.Value, r.Reason)
	case r.Quality == telemetry.Good && r.Reason != "":
		t.Fatalf("type %q: good with reason %q", word, r.Reason)
	case r.Quality != telemetry.Bad && r.Value.Kind == telemetry.KindNone:
		t.Fatalf("type %q: %v without a value", word, r.Quality)
	case r.Value.Kind == telemetry.KindArray && !r.Value.Elements(func(telemetry.Value) bool { return true }):
		t.Fatalf("type %q: damaged array", word)
	case word != "" && r.Value.Kind != telemetry.KindNone && r.Value.Kind != telemetry.KindArray && r.Value.Kind != want.kind:
		t.Fatalf("type %q: value of kind %d", word, r.Value.Kind)
	}
}

// likeTheLibrary compares a good reading with what the library makes of the bytes. It is only asked about values
// that passed, because it does not survive all others.
func likeTheLibrary(t *testing.T, raw []byte, size int, got telemetry.Reading) {
	if got.Quality == telemetry.Bad {
		return
	}
	var v ua.DataValue
	n, err := v.Decode(raw)
	if err != nil || n != size {
		if v.Value.Has(ua.VariantArrayDimensions) && strings.Contains(fmt.Sprint(err), "limits") {
			return // it takes no dimension of 0
		}
		t.Fatalf("the library decodes %d bytes (%v), we %d", n, err, size)
	}
	want, ok := plain(reflect.ValueOf(v.Value.Value()))
	if ok && showValue(got.Value) != want {
		t.Fatalf("%x: %s, the library has %s", raw, showValue(got.Value), want)
	}
	if uint32(v.Status)>>30 == 1 && got.Quality != telemetry.Uncertain {
		t.Fatalf("status %v: %v", v.Status, got.Quality)
	}
}

// plain shows numbers, texts and arrays of them as showValue does.
func plain(v reflect.Value) (string, bool) {
	if !v.IsValid() || v.Type().PkgPath() != "" {
		return "", false
	}
	switch v.Kind() {
	case reflect.Bool:
		return fmt.Sprintf("bool %t", v.Bool()), true
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("int %d", v.Int()), true
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("uint %d", v.Uint()), true
	case reflect.Float64:
		return fmt.Sprintf("float64 %v", v.Float()), true
	case reflect.String:
		return fmt.Sprintf("string %q", v.String()), true
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[[]byte]() {
			return fmt.Sprintf("string %q", hex.EncodeToString(v.Bytes())), true
		}
		var elems []string
		for i := range v.Len() {
			e, ok := plain(v.Index(i))
			if !ok {
				return "", false
			}
			elems = append(elems, e)
		}
		return "array [" + strings.Join(elems, ", ") + "]", true
	}
	return "", false
}

// script is a connection on which the server says what is written, whatever it is asked.
type script struct {
	net.Conn
	io.Reader
}

func (s script) Read(b []byte) (int, error)       { return s.Reader.Read(b) }
func (s script) Write(b []byte) (int, error)      { return len(b), nil }
func (s script) Close() error                     { return nil }
func (s script) SetDeadline(time.Time) error      { return nil }
func (s script) SetWriteDeadline(time.Time) error { return nil }

// scripted plays a server's words to a link that is opened, logged in and polled twice.
func scripted(t testing.TB, words []byte) error {
	made, err := newDriver(connection("opc.tcp://host", time.Hour, variables(2)...))
	if err != nil {
		t.Fatal(err)
	}
	made.(*driver).failures = maxFailures // no census: what follows is told by the number of reads
	d := made.(*driver)
	if err := d.over(t.Context(), script{Reader: bytes.NewReader(words)}); err != nil {
		return err
	}
	defer d.link.channel.Close()
	for range 2 {
		if _, err := d.Read(t.Context(), drivers.Ref{}, nil); err != nil {
			return err
		}
	}
	return nil
}

// over connects the driver over a connection that is there, without security.
func (d *driver) over(ctx context.Context, conn net.Conn) error {
	l, err := d.set.channel(ctx, conn, wire.Unsecured())
	if err != nil {
		return err
	}
	if err := d.set.enter(ctx, l); err != nil {
		l.channel.Close()
		return err
	}
	d.link = l
	return d.learn(ctx)
}

// honestAnswers are what a server says to a link that reads n nodes twice.
func honestAnswers(n int) []opcuasim.Answer {
	var values [][]byte
	for i := range n {
		values = append(values, opcuasim.Number(float64(i)))
	}
	return []opcuasim.Answer{
		{Kind: "ACK", Body: []byte{0, 0, 0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
		{Kind: "OPN", Body: opcuasim.OpenBody(3600_000)},
		{Kind: "MSG", Body: opcuasim.EndpointsBody()},
		{Kind: "MSG", Body: opcuasim.CreateSessionBody()},
		{Kind: "MSG", Body: opcuasim.ResponseHead(id.ActivateSessionResponse_Encoding_DefaultBinary, 0)},
		{Kind: "MSG", Body: opcuasim.ReadBody(opcuasim.Number(0))},
		{Kind: "MSG", Body: opcuasim.ReadBody(values...)},
		{Kind: "MSG", Body: opcuasim.ReadBody(values...)},
	}
}

// spoken returns the answers as they are sent, one for each request.
func spoken(answers []opcuasim.Answer) (words []byte) {
	for i, a := range answers {
		a.Sequence, a.Request = uint32(i), uint32(i)
		words = append(words, a.Bytes()...)
	}
	return words
}

func honestWords(n int) []byte { return spoken(honestAnswers(n)) }

// FuzzServer holds that whatever a server says from the first byte on ends in readings or an error, at a
// bounded cost.
func FuzzServer(f *testing.F) {
	honest := honestWords(2)
	if err := scripted(f, honest); err != nil {
		f.Fatalf("an honest server: %v", err)
	}
	f.Add(honest)
	for at := range honest {
		spoilt := bytes.Clone(honest)
		spoilt[at] ^= 0xff
		f.Add(spoilt)
	}
	f.Fuzz(func(t *testing.T, words []byte) {
		before := allocated()
		err := scripted(t, words)
		if got := allocated() - before; got > mayAllocate(len(words)) {
			t.Fatalf("%d bytes cost %d", len(words), got)
		}
		if err != nil && (err.Error() == "" || strings.Contains(err.Error(), "BUG")) {
			t.Fatalf("error %q", err)
		}
	})
}
