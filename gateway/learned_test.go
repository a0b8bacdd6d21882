package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pupil is a driver that has learned what a test says, of one device for each map.
type pupil struct {
	learned  []map[string]string
	restored []map[string]string
	err      error
}

func (p *pupil) Learned(device int) map[string]string { return p.learned[device] }
func (p *pupil) Forget(device int)                    { p.learned[device] = nil }
func (p *pupil) Restore(device int, learned map[string]string) error {
	for len(p.restored) <= device {
		p.restored = append(p.restored, nil)
	}
	p.restored[device] = learned
	return p.err
}

// class is a connection of devices named a, b, c and so on.
func class(p *pupil) *connection {
	c := &connection{learner: p}
	for i := range p.learned {
		c.learning = append(c.learning, learning{string(rune('a' + i)), "of-" + string(rune('a'+i)), nil})
	}
	return c
}

func testLearned(t *testing.T, dir string) (*learned, *safeBuffer) {
	t.Helper()
	log := &safeBuffer{}
	return newLearned(dir, slog.New(slog.NewTextHandler(log, nil))), log
}

// TestLearnedSpareFlash: the file is written when something else was learned, once a minute at most, and at once where that
// is asked for.
func TestLearnedSparesFlash(t *testing.T) {
	dir := t.TempDir()
	l, _ := testLearned(t, dir)
	now := time.Now()
	l.now = func() time.Time { return now }
	p := &pupil{learned: []map[string]string{{"pause": "1ms"}}}
	c := class(p)
	writes, before := 0, []byte(nil)
	look := func(atOnce bool) {
		t.Helper()
		l.look([]*connection{c})
		if err := l.save(atOnce); err != nil {
			t.Fatal(err)
		}
		if text, _ := os.ReadFile(l.file.path); !bytes.Equal(text, before) {
			writes++
			before = text
		}
		if text, _ := os.ReadFile(l.file.path); text != nil {
			if err := os.Remove(l.file.path); err != nil { // so that it is seen if it is written again as it was
				t.Fatal(err)
			}
			before = nil
		}
	}
	for range 1800 { // an hour, at each look something else
		now = now.Add(2 * time.Second)
		p.learned[0] = map[string]string{"pause": now.String()}
		look(false)
	}
	if writes < 55 || writes > 61 {
		t.Errorf("%d writes in an hour in which always something else was learned, want the first at once and one a minute", writes)
	}
	now = now.Add(time.Hour)
	look(false)
	writes = 0
	for range 1800 {
		now = now.Add(2 * time.Second)
		look(false)
	}
	if writes > 0 {
		t.Errorf("%d writes in an hour in which nothing was learned", writes)
	}
	p.learned[0] = nil
	look(true)
	if writes != 1 {
		t.Errorf("%d writes at a reset, want 1", writes)
	}
}

// TestLearnedAtOnce: what is learned of a device for the first time is written at the next look, so that a crash in the first minute does not lose it; a driver that
// forgets and learns again in turn gains nothing by it.
func TestLearnedAtOnce(t *testing.T) {
	l, _ := testLearned(t, t.TempDir())
	now := time.Now()
	l.now = func() time.Time { return now }
	p := &pupil{learned: []map[string]string{{"pause": "1ms"}}}
	c := class(p)
	look := func() map[string]lesson {
		t.Helper()
		now = now.Add(2 * time.Second)
		l.look([]*connection{c})
		if err := l.save(false); err != nil {
			t.Fatal(err)
		}
		by, err := readLearned(&l.file)
		if err != nil {
			t.Fatal(err)
		}
		return by
	}
	if got := look()[c.learning[0].name].Options["pause"]; got != "1ms" {
		t.Errorf("2 s after the first lesson the file says %q, want 1ms", got)
	}
	p.learned[0] = map[string]string{"pause": "2ms"}
	if got := look()[c.learning[0].name].Options["pause"]; got != "1ms" {
		t.Errorf("the file says %q, and a second lesson of a kind waits for its minute", got)
	}
	p.learned[0] = map[string]string{"pause": "2ms", "limit": "7"}
	if got := look()[c.learning[0].name].Options["limit"]; got != "7" {
		t.Errorf("2 s after the first lesson of another kind the file says %q, want 7", got)
	}
	p.learned[0] = nil
	look()
	p.learned[0] = map[string]string{"pause": "3ms"}
	if got := look()[c.learning[0].name].Options["pause"]; got != "2ms" {
		t.Errorf("the file says %q, and what was forgotten is no first lesson again", got)
	}
}

// TestLearnedGivesBack: what was kept is given back to the same device only, and of each option only while the config says
// the same of it.
func TestLearnedGivesBack(t *testing.T) {
	dir := t.TempDir()
	l, _ := testLearned(t, dir)
	c := class(&pupil{learned: []map[string]string{{"limit": "50", "pause": "25ms"}, nil, {"limit": "7"}}})
	c.learning[0].given = map[string]string{"limit": "100"}
	l.look([]*connection{c})
	if err := l.save(true); err != nil {
		t.Fatal(err)
	}
	for name, of := range map[string]struct {
		change func(*connection)
		want   map[string]string // of the first device
	}{
		"the same":             {func(*connection) {}, map[string]string{"limit": "50", "pause": "25ms"}},
		"another device":       {func(c *connection) { c.learning[0].of = "another" }, map[string]string{}},
		"another text":         {func(c *connection) { c.learning[0].given = map[string]string{"limit": "60"} }, map[string]string{"pause": "25ms"}},
		"no text any more":     {func(c *connection) { c.learning[0].given = nil }, map[string]string{"pause": "25ms"}},
		"a text it had not":    {func(c *connection) { c.learning[0].given = map[string]string{"limit": "100", "pause": "0"} }, map[string]string{"limit": "50"}},
		"something else of it": {func(c *connection) { c.learning[0].given = map[string]string{"limit": "100", "order": "ABCD"} }, map[string]string{"limit": "50", "pause": "25ms"}},
	} {
		l, log := testLearned(t, dir)
		p := &pupil{learned: make([]map[string]string, 3)}
		c := class(p)
		c.learning[0].given = map[string]string{"limit": "100"}
		of.change(c)
		l.restore(p, c.learning)
		if !maps.Equal(p.restored[0], of.want) || p.restored[1] != nil || !maps.Equal(p.restored[2], map[string]string{"limit": "7"}) {
			t.Errorf("%s: restored %q", name, p.restored)
		}
		if said := strings.Contains(log.String(), "its config says something else now"); said != (len(of.want) < 2) {
			t.Errorf("%s: log %s", name, log)
		}
	}
	refused := &pupil{learned: make([]map[string]string, 3), err: errors.New("no such limit")}
	l, log := testLearned(t, dir)
	if l.restore(refused, class(refused).learning); !strings.Contains(log.String(), "no such limit") {
		t.Errorf("log %s", log)
	}
}

// TestLearnedIsBounded: more than the file may hold is left out and told, once, and the rest is read again.
func TestLearnedIsBounded(t *testing.T) {
	dir := t.TempDir()
	l, log := testLearned(t, dir)
	p := &pupil{}
	for i := range 200 {
		p.learned = append(p.learned, map[string]string{"forbidden": strings.Repeat("x", 3000+i)})
	}
	c := class(p)
	for i := range c.learning {
		c.learning[i].name = fmt.Sprintf("device-%03d", i)
	}
	for i := range 3 {
		p.learned[0] = map[string]string{"limit": fmt.Sprint(i)}
		l.look([]*connection{c})
		if err := l.save(true); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(l.file.path)
	if err != nil || info.Size() > int64(l.file.most) || info.Size() < int64(l.file.most)/2 {
		t.Errorf("the file has %v, %v", info, err)
	}
	by, err := readLearned(&l.file)
	if err != nil || by["device-000"].Options["limit"] != "2" || len(by) < 70 || len(by) > 199 {
		t.Errorf("%d devices are read again, %v", len(by), err)
	}
	if n := strings.Count(log.String(), "is too much"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if n := strings.Count(log.String(), "learned how a device wants to be asked"); n > maxLogged+2 {
		t.Errorf("%d lines in the log for 200 devices", n)
	}
}

// TestLearnedCannotBeWritten: it is tried again, and told once.
func TestLearnedCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	l, log := testLearned(t, dir)
	l.look([]*connection{class(&pupil{learned: []map[string]string{{"limit": "50"}}})})
	for range 3 {
		if err := l.save(true); err == nil {
			t.Error("written into nothing")
		}
	}
	if n := strings.Count(log.String(), "cannot be written"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.save(true); err != nil {
		t.Fatal(err)
	}
	if by, err := readLearned(&l.file); len(by) != 1 || err != nil {
		t.Errorf("%q, %v", by, err)
	}
}

func TestConfigLines(t *testing.T) {
	got := strings.Join(configLines(map[string]string{"b": "50", "a": "holding:1-2, coil:7", "c": "25ms", "d": "", "e": "a\"b\n"}), "|")
	if want := `a: "holding:1-2, coil:7"|b: 50|c: 25ms|d: ""|e: "a\"b\n"`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// FuzzLearned reads what may stand in the file, with a checksum that fits.
func FuzzLearned(f *testing.F) {
	f.Add([]byte(`{"a":{"of":"x","learned":{"limit":"50"},"config":{"limit":"100"}}}`))
	f.Add([]byte(`{"a":null,"b":{}}`))
	f.Add([]byte(`[]`))
	file := learnedIn("")
	read := func(body []byte) (map[string]lesson, error) {
		body, err := file.parse(append([]byte(file.head(body)+"\n"), body...))
		if err != nil {
			return nil, err
		}
		return parseLearned(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		by, err := read(body)
		if _, damaged := file.parse(body); damaged == nil {
			t.Error("taken without its checksum")
		}
		l := &learned{by: by, file: file}
		if err == nil && by != nil {
			again, left := encodeWithin(l.by, l.file.room())
			if back, err := read(again); err != nil || len(back) != len(by)-left {
				t.Errorf("%q: %v", again, err)
			}
		}
		p := &pupil{learned: make([]map[string]string, 2)}
		l.log = slog.New(slog.DiscardHandler)
		l.restore(p, class(p).learning)
	})
}
