package opcua

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// kept is a past with a value each second from noon on: 0, 1, 2 …
func kept(n int) (past []*ua.DataValue) {
	for i := range n {
		past = append(past, &ua.DataValue{EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp, Value: ua.MustVariant(float64(i)),
			SourceTimestamp: noon.Add(time.Duration(i) * time.Second)})
	}
	return past
}

// pastOf reads the history of n seconds from noon + from on and returns the values of each tag.
func pastOf(t *testing.T, d *driver, from, n int) (map[uint32][]float64, error) {
	t.Helper()
	got := map[uint32][]float64{}
	err := d.History(t.Context(), drivers.Ref{}, noon.Add(time.Duration(from)*time.Second).UnixMicro(), noon.Add(time.Duration(from+n)*time.Second).UnixMicro(),
		func(readings []telemetry.Reading) error {
			for i := range readings {
				v, ok := readings[i].Value.Float()
				if want := noon.Add(time.Duration(v) * time.Second).UnixMicro(); !ok || readings[i].Time != want || readings[i].Quality != telemetry.Good {
					t.Errorf("reading %+v, want the time %d", readings[i], want)
				}
				got[readings[i].Tag] = append(got[readings[i].Tag], v)
			}
			return nil
		})
	return got, err
}

// TestHistory reads the pasts of 25 nodes in pages of 7 values: what was asked for and no more, in order, with the tags that have none named.
func TestHistory(t *testing.T) {
	s := start(t, opcuasim.Options{HistoryPage: 7}, 25)
	for i, v := range variables(25) {
		if i != 3 {
			s.SetHistory(strings.TrimPrefix(v, "ns=2;s="), kept(100))
		}
	}
	events := connection(s.Endpoint(), patience, "i=2253")
	eventTag(events, 0, nil)
	if _, err := pastOf(t, connect(t, events), 10, 50); !errors.Is(err, drivers.ErrDevice) || !strings.Contains(err.Error(), "events are not read from a server's history") {
		t.Errorf("of events: %v", err)
	}
	if _, err := pastOf(t, connect(t, connection(s.Endpoint(), patience)), 10, 50); err != nil { // of a rule that has selected nothing yet
		t.Errorf("of a group without tags: %v", err)
	}
	d := connect(t, connection(s.Endpoint(), patience, append(variables(25), "ns=2;s=none", "nsu=urn:nobody;s=x")...))
	got, err := pastOf(t, d, 10, 50)
	if err == nil || !strings.Contains(err.Error(), `no history of 3 of 27 tags, first "`) {
		t.Errorf("error %v", err)
	}
	want := make([]float64, 50)
	for i := range want {
		want[i] = float64(10 + i)
	}
	for tag := range uint32(25) {
		if tag != 3 && !slices.Equal(got[tag], want) {
			t.Errorf("tag %d: %v", tag, got[tag])
		}
	}
	if len(got) != 24 || s.Continuations() != 0 {
		t.Errorf("%d tags have a past, and %d continuation points are left", len(got), s.Continuations())
	}
	if got, err := pastOf(t, d, 200, 50); len(got) != 0 || !strings.Contains(err.Error(), "3 of 27") {
		t.Errorf("of a time without values: %v, %v", got, err)
	}
}

// TestHistoryEnds: who has enough lets the server forget where it was.
func TestHistoryEnds(t *testing.T) {
	s := start(t, opcuasim.Options{HistoryPage: 7}, 2)
	for _, v := range []string{"v0", "v1"} {
		s.SetHistory(v, kept(100))
	}
	d := connect(t, connection(s.Endpoint(), patience, variables(2)...))
	enough, answers := errors.New("enough"), 0
	err := d.History(t.Context(), drivers.Ref{}, noon.UnixMicro(), noon.Add(time.Hour).UnixMicro(), func([]telemetry.Reading) error {
		if answers++; answers == 4 { // the second node's second page
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || s.Continuations() != 0 {
		t.Errorf("%v, and %d continuation points are left", err, s.Continuations())
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = d.History(ctx, drivers.Ref{}, noon.UnixMicro(), noon.Add(time.Hour).UnixMicro(), func([]telemetry.Reading) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || s.Continuations() != 0 {
		t.Errorf("%v, and %d continuation points are left", err, s.Continuations())
	}
}

func TestConformanceHistory(t *testing.T) {
	s := start(t, opcuasim.Options{HistoryPage: 7, Browsable: true}, 3)
	for _, v := range []string{"v0", "v1", "v2"} {
		s.SetHistory(v, kept(50))
	}
	p, err := opcuasim.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	drivertest.Run(t, drivertest.Suite{
		Protocol: Protocol(), Connection: connection(p.Endpoint(), patience, variables(3)...),
		Browsable:   []string{"nsu=urn:millrace:machine;s=v1"},
		HistoryFrom: noon.Add(10 * time.Second).UnixMicro(), HistoryTo: noon.Add(40 * time.Second).UnixMicro(),
		Down: func() { p.Refuse(true) },
		Up: func() {
			if err := p.Refuse(false); err != nil {
				t.Error(err)
			}
		},
		Freeze: func() { p.Silence(true) },
		Thaw:   func() { p.Silence(false) },
	})
}

// TestNodeOPCUAHistory reads back what node-opcua has counted meanwhile: no number is missing, and none comes twice. It refuses a whole request in which
// there is a node that is no variable.
func TestNodeOPCUAHistory(t *testing.T) {
	c := connection(nodeOPCUA(t), 10*time.Second, "ns=1;s=Interop.Beat", "ns=1;s=Interop.Double", "i=2253", "i=2253")
	c.Devices[0].Groups[0].Tags[3].Type = eventType
	d := connect(t, c)
	from := time.Now()
	time.Sleep(2 * time.Second)
	var counts []float64
	err := d.History(t.Context(), drivers.Ref{}, from.UnixMicro(), time.Now().UnixMicro(), func(readings []telemetry.Reading) error {
		for i := range readings {
			v, _ := readings[i].Value.Float()
			counts = append(counts, v)
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), `no history of 2 of 3 tags, first "ns=1;s=Interop.Double": BadHistoryOperationUnsupported`) {
		t.Errorf("error %v", err)
	}
	if len(counts) < 5 {
		t.Fatalf("%d numbers in 2 s", len(counts))
	}
	for i := range counts {
		if counts[i] != counts[0]+float64(i) {
			t.Fatalf("number %v after %v", counts[i], counts[:i])
		}
	}
}

// FuzzHistory takes any answer for one to a HistoryRead of two nodes: nothing panics, and every reading is one that was asked for.
func FuzzHistory(f *testing.F) {
	data, err := ua.Encode(&struct{ Results []*ua.HistoryReadResult }{[]*ua.HistoryReadResult{
		{ContinuationPoint: []byte{1}, HistoryData: ua.NewExtensionObject(&ua.HistoryData{DataValues: kept(3)})}, {HistoryData: ua.NewExtensionObject(nil)}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[4:]) // behind their number
	f.Fuzz(func(t *testing.T, data []byte) {
		from, to := noon.UnixMicro(), noon.Add(time.Second).UnixMicro()
		d := &driver{converter: converter{texts: statusTexts{}}}
		h := history{driver: d, group: &group{tags: make([]tag, 2)}, from: from, to: to, asked: []past{{tag: 0}, {tag: 1}}, refused: &historyError{},
			emit: func(readings []telemetry.Reading) error {
				for i := range readings {
					if x := &readings[i]; x.Tag > 1 || x.Time < from || x.Time >= to {
						t.Fatalf("reading %+v", x)
					}
				}
				return nil
			}}
		r := newReader(data)
		if h.parse(&r) != nil {
			return
		}
		if err := h.take(); err == nil && len(h.asked) > 2 {
			t.Fatalf("%d nodes of 2 have more", len(h.asked))
		}
	})
}
