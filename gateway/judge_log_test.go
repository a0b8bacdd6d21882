package gateway

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/gateway/web"
)

// TestLogIsDamped: a state that comes and goes has a line a minute, and the log's last word is true.
func TestLogIsDamped(t *testing.T) {
	log := &safeBuffer{}
	f := &shown{judge: &judge{log: slog.New(slog.NewTextHandler(log, nil)), states: map[string]*standing{}}, snap: wellSnapshot()}
	for i := range 200 { // seconds
		f.snap.Now = judged.Add(time.Duration(i) * time.Second)
		for j := range f.snap.Devices {
			f.snap.Devices[j].Groups[0].LastAt = f.snap.Now
		}
		f.snap.Devices[0].Reason = []string{"", "timeout"}[i%2]
		if i > 150 {
			f.snap.Devices[0].Reason = ""
		}
		f.judge.tell(f.Snapshot())
	}
	text := log.String()
	if n := strings.Count(text, "\n"); n < 2 || n > 4 {
		t.Errorf("%d lines in 200 s of flapping:\n%s", n, text)
	}
	if last := text[strings.LastIndex(strings.TrimSpace(text), "\n")+1:]; !strings.Contains(last, `device \"press-1\" is no longer down`) || !strings.Contains(last, "lasted=1s times=75 within=2m29s") {
		t.Errorf("the last word is %q", last)
	}
}

// TestLogOfChanges: what gets worse has one line and no end, what ends is told at once, and only a person ends a loss.
func TestLogOfChanges(t *testing.T) {
	var losingSince time.Time
	loss := func(losing bool) func(*web.Snapshot) {
		return func(s *web.Snapshot) {
			if !losing {
				losingSince = time.Time{}
			} else if losingSince.IsZero() {
				losingSince = s.Now
			}
			s.Losses = []web.Loss{{LosingSince: losingSince, Destination: "cloud", Readings: 1, Causes: "1 rejected", From: judged, To: judged, Losing: losing}}
		}
	}
	absent := func(s *web.Snapshot) { s.Absent = []web.Absent{{Name: "old", Records: 1, Readings: 2}} }
	logsSay(t, map[string]logRow{
		"down":         {[]phase{{16, down}, {20, well}}, []string{`0 WARN device "press-1": down since`, `16 INFO device "press-1" is no longer down lasted=16s`}},
		"shortly down": {[]phase{{4, down}, {20, well}}, []string{`0 WARN device "press-1": down since`, `14 INFO device "press-1" is no longer down lasted=4s`}},
		"down again and again": {[]phase{{4, down}, {4, well}, {4, down}, {4, well}, {4, down}, {20, well}}, []string{
			`0 WARN device "press-1": down since`, `30 INFO device "press-1" is no longer down lasted=4s times=3 within=20s`}},
		"down twice": {[]phase{{14, down}, {6, well}, {30, down}, {4, well}}, []string{
			`0 WARN device "press-1": down since`, `14 INFO device "press-1" is no longer down lasted=14s`,
			`20 WARN device "press-1": down since`, `50 INFO device "press-1" is no longer down lasted=30s`}},
		"worse, then well": {[]phase{{20, bad(3)}, {20, down}, {20, well}}, []string{
			`0 WARN device "press-1": partly bad since`, `20 WARN device "press-1": down since`, `40 INFO device "press-1" is no longer down lasted=20s`}},
		"worse, and better again": {[]phase{{20, bad(3)}, {20, down}, {20, bad(2)}, {2, well}}, []string{
			`0 WARN device "press-1": partly bad since`, `20 WARN device "press-1": down since`, `40 INFO device "press-1" is no longer down lasted=20s`,
			`40 WARN device "press-1": partly bad since`, `60 INFO device "press-1" is no longer partly bad lasted=20s`}},
		"down, then taken out": {[]phase{{16, down}, {2, func(s *web.Snapshot) { s.Devices = s.Devices[1:] }}}, []string{
			`0 WARN device "press-1": down since`, `16 INFO device "press-1" is no longer in the config; it was down lasted=16s`}},
		"destination down, then taken out": {[]phase{{16, func(s *web.Snapshot) { s.Destinations[0].State = "waiting" }}, {2, func(s *web.Snapshot) { s.Destinations = nil }}}, []string{
			`0 WARN destination "cloud": down since`, `16 INFO destination "cloud" is no longer in the config; it was down lasted=16s`}},
		"absent, then put back": {[]phase{{16, absent}, {2, func(s *web.Snapshot) {
			s.Destinations = append(s.Destinations, web.Destination{Name: "old", State: "connected"})
		}}}, []string{
			`0 WARN destination "old": absent since`, `16 INFO destination "old" is no longer absent: it is in the config again lasted=16s`}},
		"absent, then forgotten": {[]phase{{16, absent}, {2, well}}, []string{
			`0 WARN destination "old": absent since`, `16 INFO destination "old" is no longer absent: the store keeps no record for it any more lasted=16s`}},
		"refused, then taken": {[]phase{{16, func(s *web.Snapshot) { s.Config.Problem, s.Config.ProblemAt = "a key", judged }}, {2, well}}, []string{
			`0 WARN config "/etc/millrace.yaml": refused since 2026-03-01T12:30:00Z: the last reload was refused, and the config before runs on: a key; see to that and reload again`, `16 INFO no more: config "/etc/millrace.yaml": refused since 2026-03-01T12:30:00Z: the last reload was refused, and the config before runs on: a key lasted=16s`}},
		"lost": {[]phase{{10, loss(true)}, {88, loss(false)}, {10, loss(true)}, {20, loss(false)}, {2, well}}, []string{
			`0 ERROR destination "cloud": losing data since`, `10 INFO destination "cloud" is no longer losing data lasted=10s`,
			`10 ERROR destination "cloud": lost data since`, `98 ERROR destination "cloud": losing data since`,
			`108 INFO destination "cloud" is no longer losing data lasted=10s`, `108 ERROR destination "cloud": lost data since`,
			`128 INFO destination "cloud": the notice of lost data has ended lasted=2m8s`}},
		"lost and down": {[]phase{{20, loss(false)}, {20, func(s *web.Snapshot) { loss(false)(s); down(s) }}}, []string{
			`0 ERROR destination "cloud": lost data since`, `20 WARN device "press-1": down since`}},
	})
}

// TestLogOfTurns: what comes and goes, or gets better and worse in turn, ends as it is.
func TestLogOfTurns(t *testing.T) {
	logsSay(t, map[string]logRow{
		"down, and again for good": {[]phase{{4, down}, {4, well}, {60, down}, {4, well}}, []string{
			`0 WARN device "press-1": down since 2026-03-01T12:30:00Z`, `18 WARN device "press-1": down since 2026-03-01T12:30:08Z`, `68 INFO device "press-1" is no longer down lasted=1m0s`}},
		"down again and again between two looks, and for good": {[]phase{{1, down}, {1, well}, {1, down}, {1, well}, {1, down}, {1, well}, {60, down}, {4, well}}, []string{
			`0 WARN device "press-1": down since 2026-03-01T12:30:00Z`,
			`16 WARN device "press-1": down since 2026-03-01T12:30:06Z: timeout; it is tried again; see its power, its line and its url times=4 within=6s`, `66 INFO device "press-1" is no longer down lasted=1m0s`}},
		"down again and again between two looks, then well": {[]phase{{1, down}, {1, well}, {1, down}, {1, well}, {1, down}, {21, well}}, []string{
			`0 WARN device "press-1": down since 2026-03-01T12:30:00Z`, `16 INFO device "press-1" is no longer down lasted=2s times=3 within=6s`}},
		"worse while that is held back, then well": {[]phase{{4, down}, {4, bad(1)}, {4, down}, {8, bad(1)}, {4, down}, {20, well}}, []string{
			`0 WARN device "press-1": down since 2026-03-01T12:30:00Z`, `4 INFO device "press-1" is no longer down lasted=4s`, `4 WARN device "press-1": partly bad since 2026-03-01T12:30:04Z`,
			`8 WARN device "press-1": down since 2026-03-01T12:30:08Z`, `12 INFO device "press-1" is no longer down lasted=4s`, `12 WARN device "press-1": partly bad since 2026-03-01T12:30:12Z`,
			`30 INFO device "press-1" is no longer partly bad lasted=8s`}},
		"down, better, and down for good": {[]phase{{4, bad(4)}, {4, bad(1)}, {160, bad(4)}, {4, well}}, []string{
			`0 WARN device "press-1": down since 2026-03-01T12:30:00Z`, `4 INFO device "press-1" is no longer down lasted=4s`, `4 WARN device "press-1": partly bad since 2026-03-01T12:30:04Z`,
			`8 WARN device "press-1": down since 2026-03-01T12:30:08Z`, `168 INFO device "press-1" is no longer down lasted=2m40s`}},
		"down and better in turn, then down for good": {[]phase{{4, down}, {4, bad(1)}, {4, down}, {4, bad(1)}, {4, down}, {4, bad(1)}, {56, down}, {4, well}}, []string{
			`0 WARN device "press-1": down since 2026-03-01T12:30:00Z`, `4 INFO device "press-1" is no longer down lasted=4s`, `4 WARN device "press-1": partly bad since 2026-03-01T12:30:04Z`,
			`8 WARN device "press-1": down since 2026-03-01T12:30:08Z`, `12 INFO device "press-1" is no longer down lasted=4s`, `12 WARN device "press-1": partly bad since 2026-03-01T12:30:12Z`,
			`60 WARN device "press-1": down since 2026-03-01T12:30:24Z`, `80 INFO device "press-1" is no longer down lasted=56s`}},
		"down and better in turn, then better for good": {[]phase{{4, bad(1)}, {4, down}, {4, bad(1)}, {4, down}, {84, bad(1)}, {4, well}}, []string{
			`0 WARN device "press-1": partly bad since 2026-03-01T12:30:00Z`, `4 WARN device "press-1": down since 2026-03-01T12:30:04Z`,
			`8 INFO device "press-1" is no longer down lasted=4s`, `8 WARN device "press-1": partly bad since 2026-03-01T12:30:08Z`, `12 WARN device "press-1": down since 2026-03-01T12:30:12Z`,
			`60 INFO device "press-1" is no longer down lasted=4s`, `60 WARN device "press-1": partly bad since 2026-03-01T12:30:16Z`, `100 INFO device "press-1" is no longer partly bad lasted=1m24s`}},
		"hung, its since worked out anew at each look": {[]phase{{80, func(s *web.Snapshot) {
			s.Stalls = []web.Stall{{Kind: "store", Name: "/data", Since: judged.Add(time.Duration(s.Now.Second()%4) * time.Millisecond)}}
		}}}, []string{`0 ERROR store "/data": hung since 2026-03-01T12:30:00Z`}},
		"two of one name": {[]phase{{80, func(s *web.Snapshot) {
			s.Changes = []web.DeviceChange{{Device: "press-1", Since: judged}, {Device: "press-1", Since: judged.Add(-time.Hour)}}
		}}}, []string{`0 WARN device "press-1": changed since 2026-03-01T12:30:00Z`}},
		"a certificate that ends": {[]phase{{4, func(s *web.Snapshot) { s.Certificates = certificate(false, 30*24*time.Hour) }}, {4, func(s *web.Snapshot) { s.Certificates = certificate(false, 24*time.Hour) }}}, []string{
			`0 WARN certificate "cloud": expires soon`, `4 WARN certificate "cloud": expires this week`}},
	})
}

type logRow struct {
	phases []phase
	want   []string // how the lines begin
}

func logsSay(t *testing.T, rows map[string]logRow) {
	for name, c := range rows {
		t.Run(name, func(t *testing.T) {
			if got := logOf(t, c.phases, new(web.Snapshot)); !slices.EqualFunc(got, c.want, strings.HasPrefix) {
				t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// How a gateway stands for a phase.
func well(*web.Snapshot) {}

func down(s *web.Snapshot) { s.Devices[0].Reason = "timeout" }

func bad(n int) func(*web.Snapshot) {
	return func(s *web.Snapshot) { s.Devices[0].Tags, s.Devices[0].Bad, s.Devices[0].BadTag = 4, n, "t1" }
}

// TestLogEndsTrue: whatever came and went before, what has held for a minute is the last that the log says of each thing, with the since that all
// other places show.
func TestLogEndsTrue(t *testing.T) {
	ways := []func(*web.Snapshot){
		func(*web.Snapshot) {},
		func(s *web.Snapshot) { s.Devices[0].Reason = "timeout" },
		func(s *web.Snapshot) { s.Devices[0].Tags, s.Devices[0].Bad = 4, 1 },
		func(s *web.Snapshot) {
			late("poll")(s)
			s.Devices[0].Groups[0].MissedAt = s.Now
		},
		func(s *web.Snapshot) { s.Destinations[0].State = "waiting" },
		func(s *web.Snapshot) { s.Losses = []web.Loss{{Destination: "hist", Readings: 1, From: judged}} },
		func(s *web.Snapshot) {
			s.Losses = []web.Loss{{Destination: "hist", Readings: 1, From: judged, Losing: true}}
			s.Buffer.Health = "no"
		},
		func(s *web.Snapshot) { s.Certificates = certificate(false, time.Hour) },
		func(s *web.Snapshot) { s.Certificates = certificate(false, -time.Hour) },
		func(s *web.Snapshot) { s.Clock = web.Clock{State: web.StateUnset, Reason: "nothing sets it"} },
		func(s *web.Snapshot) { s.Clock = web.Clock{State: web.StateJumped, Reason: "by 1h0m0s"} },
	}
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 1))
		turns := []func(*web.Snapshot){ways[0]} // few of the ways: what comes again within a minute is what the log holds back
		for range 1 + r.IntN(3) {
			turns = append(turns, ways[r.IntN(len(ways))])
		}
		var phases []phase
		most := 1 + r.IntN(20)
		for range 2 + r.IntN(16) {
			phases = append(phases, phase{1 + r.IntN(most), turns[r.IntN(len(turns))]})
		}
		var last web.Snapshot
		final := turns[r.IntN(len(turns))]
		lines := logOf(t, append(phases, phase{76, func(s *web.Snapshot) { final(s) }}), &last)
		said := map[string]string{} // of each thing
		for _, line := range lines {
			_, text, _ := strings.Cut(line, " ")
			_, text, _ = strings.Cut(text, " ")
			text = strings.TrimPrefix(text, "no more: ")
			words := strings.SplitN(text, `"`, 3)
			said[words[0]+words[1]] = line
			for i := range last.States {
				if st := &last.States[i]; strings.HasPrefix(text, st.String()) {
					said[words[0]+words[1]] = ""
				}
			}
		}
		for thing, line := range said {
			stands := slices.ContainsFunc(last.States, func(st web.State) bool { return st.Kind+" "+st.Name == thing })
			if line != "" && (stands || !strings.Contains(line, " INFO ")) {
				t.Errorf("seed %d: %+v; the log says\n%s", seed, last.States, strings.Join(lines, "\n"))
			}
		}
		for i := range last.States {
			if _, has := said[last.States[i].Kind+" "+last.States[i].Name]; !has {
				t.Errorf("seed %d: nothing is said of %v", seed, &last.States[i])
			}
		}
		if t.Failed() {
			return
		}
	}
}

// phase is how the gateway stands for so many seconds.
type phase struct {
	seconds int // what has a since of its own, a device that is down for example, has it from the phase's beginning
	state   func(*web.Snapshot)
}

// logOf returns what the log says of the phases, each line with the second in which it was written. Last is set to the last snapshot.
func logOf(t *testing.T, phases []phase, last *web.Snapshot) (lines []string) {
	t.Helper()
	log := &safeBuffer{}
	j := &judge{log: slog.New(slog.NewJSONHandler(log, nil)), states: map[string]*standing{}}
	at, read := 0, 0
	for _, p := range phases {
		began := judged.Add(time.Duration(at) * time.Second)
		for end := at + p.seconds; at < end; at++ {
			if at%2 > 0 { // it is looked every two seconds, whatever has come and gone meanwhile
				continue
			}
			f := &shown{judge: j, snap: wellSnapshot()}
			f.snap.Now = judged.Add(time.Duration(at) * time.Second)
			for i := range f.snap.Devices {
				f.snap.Devices[i].Groups[0].LastAt, f.snap.Devices[i].Since = f.snap.Now, began
			}
			f.snap.Destinations[0].Since = began
			p.state(&f.snap)
			*last = *f.Snapshot()
			j.tell(last)
			for line := range strings.Lines(log.String()[read:]) {
				var l struct {
					Level, Msg string
					Lasted     time.Duration
					Times      int
					Within     time.Duration
				}
				if err := json.Unmarshal([]byte(line), &l); err != nil {
					t.Fatal(err)
				}
				text := fmt.Sprintf("%d %s %s", at, l.Level, l.Msg)
				if l.Lasted > 0 {
					text += fmt.Sprintf(" lasted=%v", l.Lasted)
				}
				if l.Times > 0 {
					text += fmt.Sprintf(" times=%d within=%v", l.Times, l.Within)
				}
				lines = append(lines, text)
			}
			read = len(log.String())
		}
	}
	return lines
}
