package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
	"millrace/gateway"
	"millrace/gateway/config"
	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/record"
	"millrace/gateway/web"
)

const storeStart = 1_700_000_000_000_000 // µs; the first record's time

// makeStore makes a store of n records of two tags of press-1, a second apart, and two destinations, in whose
// quarantine the first record is, refused by cloud. Nobody runs on it.
func makeStore(t *testing.T, n int) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	b, err := buffer.Open(dir, buffer.Options{Destinations: []string{"cloud", "old"}, CommitInterval: time.Hour, MaxSize: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, b, n)
	d := b.Destination("cloud")
	var rec buffer.Record
	if ok, err := d.Reader(0, 0).Next(&rec); !ok || err != nil || !d.Take(&rec) {
		t.Fatal(ok, err)
	}
	if err := d.Reject(rec.Seq, "topic forbidden"); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func fillStore(t *testing.T, b *buffer.Buffer, n int) {
	t.Helper()
	schema := record.Schema{Device: "press-1", Group: "ram", Tags: []record.Tag{{Name: "force", More: &record.Details{Unit: "kN"}}, {Name: "state"}}}
	s, err := b.Stream("press-1", record.AppendSchema(nil, &schema))
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		at := storeStart + int64(i)*1e6
		rec := record.Record{Time: at, Readings: []telemetry.Reading{
			{Tag: 0, Time: at - 10_000, Value: telemetry.Float32(float32(i) / 2)}, telemetry.BadReading(1, at, "cable, \"cut\"")}}
		if _, err := b.Append(s, record.Append(nil, &rec), 2, at); err != nil {
			t.Fatal(err)
		}
	}
}

// millrace runs a command and returns its exit code and standard output.
func millrace(args ...string) (int, string) {
	var out bytes.Buffer
	code := execute(args, &out)
	return code, out.String()
}

func mustSay(t *testing.T, want []string, args ...string) string {
	t.Helper()
	code, out := millrace(args...)
	if code != exitOK {
		t.Fatalf("%q exits with %d:\n%s", args, code, out)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("%q does not say %q:\n%s", args, w, out)
		}
	}
	return out
}

func TestBufferOfStoppedStore(t *testing.T) {
	dir := makeStore(t, 1000)
	before := listDir(t, dir)
	mustSay(t, []string{"no gateway runs on it", `destination "cloud": backlog 1,000 records`, `destination "old": backlog 1,000 records`, "quarantine  1 record ",
		"press-1", "2 (rejected 2)", "health      ok"}, "buffer", "status", "--path", dir)
	mustSay(t, []string{"seg-0000000000000001.db", "sealed"}, "buffer", "ls", "--path", dir)
	mustSay(t, []string{`group "ram"`, "force  1.5  kN  good", `state           bad   cable, "cut"`}, "buffer", "show", "4", "--path", dir)
	mustSay(t, []string{"ok\n", " 1,001 records"}, "buffer", "verify", "--path", dir)
	mustSay(t, []string{"1:cloud", "press-1", "topic forbidden"}, "buffer", "quarantine", "ls", "--path", dir)
	if code, _ := millrace("buffer", "show", "5000", "--path", dir); code != exitFailed {
		t.Errorf("a record that is not there: exit %d", code)
	}
	if after := listDir(t, dir); after != before {
		t.Errorf("looking changed the files:\n%s\nbefore:\n%s", after, before)
	}
	var st web.StoreStatus
	if err := json.Unmarshal([]byte(mustSay(t, nil, "buffer", "status", "--json", "--path", dir)), &st); err != nil || st.Stats.NextSeq < 1001 {
		t.Errorf("status --json: %v, %+v", err, st.Stats)
	}
}

// listDir is the names, sizes and times of the files of a directory.
func listDir(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %d %v\n", e.Name(), info.Size(), info.ModTime())
	}
	return out.String()
}

func TestBufferExport(t *testing.T) {
	dir := makeStore(t, 1000)
	for _, c := range []struct {
		args []string
		want int // records of press-1
		gaps int // gap records
	}{
		{nil, 1000, 1},
		{[]string{"--from", "101", "--to", "201"}, 100, 0},
		{[]string{"--from", "2023-11-14T22:13:30Z", "--to", "2023-11-14T22:13:40Z"}, 10, 0}, // storeStart is 22:13:20
		{[]string{"--device", "press-1", "--to", "11"}, 10, 0},
		{[]string{"--device", "nobody"}, 0, 0},
	} {
		rows, err := csv.NewReader(strings.NewReader(mustSay(t, nil, append([]string{"buffer", "export", "--format", "csv", "--path", dir}, c.args...)...))).ReadAll()
		if err != nil || len(rows) != 1+2*c.want+c.gaps {
			t.Errorf("csv %q: %d rows, want %d; %v", c.args, len(rows), 1+2*c.want+c.gaps, err)
		}
		lines := strings.Split(mustSay(t, nil, append([]string{"buffer", "export", "--format", "jsonl", "--path", dir}, c.args...)...), "\n")
		if len(lines)-1 != c.want+c.gaps {
			t.Errorf("jsonl %q: %d lines, want %d", c.args, len(lines)-1, c.want+c.gaps)
		}
		for _, line := range lines[:len(lines)-1] {
			var m map[string]any
			if err := json.Unmarshal([]byte(line), &m); err != nil || m["device"] != "press-1" {
				t.Fatalf("line %q: %v", line, err)
			}
		}
	}
	rows, _ := csv.NewReader(strings.NewReader(mustSay(t, nil, "buffer", "export", "--format", "csv", "--path", dir))).ReadAll()
	if got := strings.Join(rows[3], "|"); got != "2|2023-11-14T22:13:21.000Z|2023-11-14T22:13:20.990Z|press-1|ram|force|0.5|kN|good|" {
		t.Errorf("row %s", got)
	}
	if got := strings.Join(rows[4], "|"); got != `2|2023-11-14T22:13:21.000Z|2023-11-14T22:13:21.000Z|press-1|ram|state|||bad|cable, "cut"` {
		t.Errorf("row %s", got)
	}
	if got := rows[len(rows)-1]; got[2] != "" || got[8] != "gap" || !strings.Contains(got[9], "2 readings lost: rejected") {
		t.Errorf("gap %q", got)
	}
	mustSay(t, []string{`"ts":1700000001000,`, `"times":{"force":1700000000990}`}, "buffer", "export", "--path", dir)
	epoch := regexp.MustCompile(`"epoch":"[0-9a-f]{16}"`)
	want := epoch.FindString(mustSay(t, nil, "buffer", "export", "--path", dir))
	if got := epoch.FindString(mustSay(t, []string{`"seq":1,`}, "buffer", "quarantine", "export", "--path", dir)); got != want || got == "" {
		t.Errorf("of a refused record %s, of the others %s", got, want)
	}
}

func TestBufferUsage(t *testing.T) {
	dir := makeStore(t, 10)
	for _, c := range []struct {
		code int
		args []string
	}{
		{exitUsage, []string{"buffer", "export", "--format", "xml", "--path", dir}},
		{exitUsage, []string{"buffer", "export", "--from", "yesterday", "--path", dir}},
		{exitUsage, []string{"buffer", "show", "first", "--path", dir}},
		{exitUsage, []string{"buffer", "quarantine", "retry", "--path", dir}},
		{exitFailed, []string{"buffer", "quarantine", "delete", "77:cloud", "--path", dir}},
		{exitFailed, []string{"buffer", "status", "--path", filepath.Join(dir, "none")}},
		{exitFailed, []string{"buffer", "status", "--config", filepath.Join(dir, "none.yaml")}},
		{exitFailed, []string{"buffer", "forget", "nobody", "--path", dir}},
	} {
		if code, out := millrace(c.args...); code != c.code {
			t.Errorf("%q exits with %d, want %d:\n%s", c.args, code, c.code, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("looking for a store made one")
	}
}

func TestBufferVerifyFindsDamage(t *testing.T) {
	dir := makeStore(t, 5000)
	files, err := filepath.Glob(filepath.Join(dir, "seg-*.db"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	raw := []byte(readFile(t, files[0]))
	for i := 6 * 4096; i < 7*4096; i++ {
		raw[i] ^= 0x55
	}
	writeFile(t, files[0], string(raw))
	code, out := millrace("buffer", "verify", "--path", dir)
	if code != exitFailed || !strings.Contains(out, "damaged: "+filepath.Base(files[0])) {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if !bytes.Equal([]byte(readFile(t, files[0])), raw) {
		t.Error("verify changed the file")
	}
	if code, out := millrace("buffer", "export", "--path", dir); code != exitFailed || strings.Count(out, "\n") < 1000 {
		t.Errorf("export of a damaged store: exit %d, %d lines", code, strings.Count(out, "\n"))
	}
}

func TestBufferChangesStoppedStore(t *testing.T) {
	dir := makeStore(t, 100)
	mustSay(t, []string{"1:cloud goes out again as record"}, "buffer", "quarantine", "retry", "1:cloud", "--path", dir)
	mustSay(t, []string{"backlog 101 records"}, "buffer", "status", "--path", dir)
	if out := mustSay(t, nil, "buffer", "quarantine", "ls", "--path", dir); strings.Contains(out, "1:cloud") {
		t.Errorf("still in quarantine:\n%s", out)
	}
	mustSay(t, []string{"forgotten"}, "buffer", "forget", "old", "--path", dir)
	if out := mustSay(t, nil, "buffer", "status", "--path", dir); strings.Contains(out, `"old"`) || !strings.Contains(out, "backlog 101 records") {
		t.Errorf("after forget:\n%s", out)
	}
	if code, _ := millrace("buffer", "forget", "cloud", "--path", dir); code != exitFailed {
		t.Errorf("forgetting the last destination: exit %d", code)
	}
	mustSay(t, []string{"ok\n"}, "buffer", "verify", "--path", dir)
}

func TestBufferDelete(t *testing.T) {
	dir := makeStore(t, 100)
	mustSay(t, []string{"1:cloud deleted"}, "buffer", "quarantine", "delete", "--all", "--path", dir)
	mustSay(t, []string{"backlog 100 records"}, "buffer", "status", "--path", dir)
}

// TestBufferHeldByAnother: while a process holds the store and does not answer, one can look but change nothing.
// TestQuarantineIDs: an entry is named by the sequence number as the log and the messages have it, in decimal.
func TestQuarantineIDs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	b, err := buffer.Open(dir, buffer.Options{Destinations: []string{"cloud"}, CommitInterval: time.Hour, MaxSize: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, b, 30)
	d := b.Destination("cloud")
	r, rec := d.Reader(0, 0), buffer.Record{}
	for rec.Seq < 26 {
		if ok, err := r.Next(&rec); !ok || err != nil || !d.Take(&rec) {
			t.Fatal(ok, err)
		}
	}
	if err := d.Reject(rec.Seq, "topic forbidden"); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	mustSay(t, []string{"\n26:cloud "}, "buffer", "quarantine", "ls", "--path", dir)
	mustSay(t, []string{`"seq":26,`}, "buffer", "quarantine", "export", "--path", dir)
	if code, _ := millrace("buffer", "quarantine", "retry", "1a:cloud", "--path", dir); code != exitFailed {
		t.Errorf("an ID in hex: exit %d", code)
	}
	mustSay(t, []string{"26:cloud goes out again as record"}, "buffer", "quarantine", "retry", "26:cloud", "--path", dir)
}

func TestBufferHeldByAnother(t *testing.T) {
	dir := makeStore(t, 100)
	b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	held := fmt.Sprintf("process %d has it open, but no gateway answers at its socket", os.Getpid())
	mustSay(t, []string{"backlog 100 records", held}, "buffer", "status", "--path", dir)
	if code, _ := millrace("buffer", "quarantine", "delete", "--all", "--path", dir); code != exitFailed {
		t.Errorf("delete beside the holder: exit %d", code)
	}
}

// TestBufferStatusAfterRemoval: while a gateway makes its directory and its socket anew, no status says that none runs.
func TestBufferStatusAfterRemoval(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	_, stop := running(t, dir)
	until(t, "runs on it", "buffer", "status", "--path", dir)
	for try := 0; os.RemoveAll(dir) != nil && try < 100; try++ { // the gateway may write into it meanwhile
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		code, out := millrace("buffer", "status", "--path", dir)
		if strings.Contains(out, "no gateway runs") {
			t.Fatalf("beside a gateway:\n%s", out)
		}
		if code == exitOK && strings.Contains(out, `gateway "shop" (v-test) runs on it`) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the socket is not made again; exit %d:\n%s", code, out)
		}
	}
	stop()
	mustSay(t, []string{"no gateway runs on it"}, "buffer", "status", "--path", dir)
}

// running runs a gateway on a store, with a plant and a broker, until stop is called or the test ends.
func running(t *testing.T, dir string) (file string, stop func()) {
	t.Helper()
	meter, err := modbussim.Start(modbussim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(meter.Close)
	meter.Unit(1)
	broker := brokersim.New(brokersim.Options{})
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Stop)
	file = filepath.Join(t.TempDir(), "millrace.yaml")
	writeFile(t, file, fmt.Sprintf(runningConfig, dir, broker.Addr(), meter.URL()))
	return file, runningOn(t, file, dir)
}

// runningOn runs a gateway with a config whose store is in dir.
func runningOn(t *testing.T, file, dir string) (stop func()) {
	t.Helper()
	load := func() (*config.Config, error) { return config.Load(file, protocols(), config.Options{}) }
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(t.Context(), cfg, gateway.Options{Version: "v-test", Log: slog.New(slog.DiscardHandler), Load: load})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("gateway: %v", err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "control.sock")); err == nil {
			t.Error("the socket is still there after the stop")
		}
	})
	t.Cleanup(stop)
	return stop
}

const runningConfig = `gateway: shop
web: {enabled: false}
grace_time: 100ms
buffer: {path: %q, max_size: 8MiB, commit_interval: 50ms}
destinations:
  - {name: cloud, url: "mqtt://%s", username: tester, password: hush-hush}
devices:
  - name: meter-1
    driver: modbus
    url: %s
    unit: 1
    groups:
      - name: grid
        interval: 100ms
        tags:
          - {name: power, address: "holding:1", type: uint16, unit: kW}
`

// until runs a command again and again until its output contains want.
func until(t *testing.T, want string, args ...string) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		code, out := millrace(args...)
		if code == exitOK && strings.Contains(out, want) {
			return out
		}
		if time.Now().After(end) {
			t.Fatalf("%q never says %q; exit %d:\n%s", args, want, code, out)
		}
	}
}

func TestBufferOfRunningGateway(t *testing.T) {
	dir := makeStore(t, 1000)
	writeFile(t, filepath.Join(dir, "control.sock"), "stale") // as a killed gateway leaves one
	file, _ := running(t, dir)
	at := []string{"--config", file}
	with := func(args ...string) []string { return append(append([]string{"buffer"}, args...), at...) }

	out := until(t, `gateway "shop" (v-test) runs on it`, with("status")...)
	if !strings.Contains(out, "millrace buffer forget old") || strings.Contains(out, "forget cloud") {
		t.Errorf("status does not say who is not configured:\n%s", out)
	}
	if strings.Contains(out, "hush") || strings.Contains(out, "tester") {
		t.Errorf("a secret is shown:\n%s", out)
	}
	if info, err := os.Stat(filepath.Join(dir, "control.sock")); err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("socket: %v, %v", info, err)
	}
	out = mustSay(t, []string{`"device":"press-1"`, `"gateway":"shop"`}, with("export", "--device", "press-1")...)
	if n := strings.Count(out, "\n"); n != 1001 {
		t.Errorf("export: %d lines, want 1000 records and a gap", n)
	}
	mustSay(t, []string{"force  1.5  kN  good"}, with("show", "4")...)
	mustSay(t, []string{"ok\n"}, with("verify")...)
	mustSay(t, []string{"seg-0000000000000001.db"}, with("ls")...)
	backup := filepath.Join(t.TempDir(), "backup")
	mustSay(t, []string{`destination "old": 1,0`, "ok\n"}, with("backup", backup)...)
	if code, _ := millrace(with("backup", backup)...); code != exitFailed {
		t.Errorf("a second backup over the first: exit %d", code)
	}
	if code, _ := millrace(with("restore", backup)...); code != exitFailed {
		t.Errorf("a restore over a running gateway: exit %d", code)
	}
	mustSay(t, []string{"1:cloud"}, with("quarantine", "ls")...)
	restored := filepath.Join(t.TempDir(), "restored")
	mustSay(t, []string{"ok\n"}, "buffer", "restore", backup, "--path", restored)
	if n := strings.Count(mustSay(t, []string{`"device":"press-1"`}, "buffer", "export", "--device", "press-1", "--path", restored), "\n"); n != 1001 {
		t.Errorf("%d lines of the restored store, want 1000 records and a gap", n)
	}
	mustSay(t, []string{"1:cloud"}, "buffer", "quarantine", "ls", "--path", restored)
	mustSay(t, []string{"goes out again"}, with("quarantine", "retry", "--all")...)
	if code, _ := millrace(with("quarantine", "delete", "1:cloud")...); code != exitFailed {
		t.Errorf("deleting what is not there: exit %d", code)
	}
	if code, _ := millrace("buffer", "forget", "cloud", "--path", dir); code != exitFailed {
		t.Errorf("forgetting a configured destination: exit %d", code)
	}
	mustSay(t, []string{`destination "old" forgotten; records that were waiting for it and are given up: 1`}, with("forget", "old")...)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // all that only old held goes
		if out = mustSay(t, nil, with("ls")...); !strings.Contains(out, "seg-0000000000000001.db") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the segment that only the forgotten one held is still there:\n%s", out)
		}
	}
	out = mustSay(t, nil, with("status")...)
	if strings.Contains(out, `"old"`) {
		t.Errorf("still there:\n%s", out)
	}
}

// TestBufferBesideStop: an export that is under way when the gateway stops ends, says so and does not hold it up.
func TestBufferBesideStop(t *testing.T) {
	dir := makeStore(t, 60000)
	file, stop := running(t, dir)
	until(t, `gateway "shop"`, "buffer", "status", "--config", file)
	slow, out := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- execute([]string{"buffer", "export", "--config", file}, out)
		_ = out.Close()
	}()
	if _, err := slow.Read(make([]byte, 1)); err != nil { // it has begun, and waits for its reader
		t.Fatal(err)
	}
	began := time.Now()
	stop()
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the stop took %v", took)
	}
	_, _ = io.Copy(io.Discard, slow)
	if got := <-code; got != exitFailed {
		t.Errorf("an export cut short exits with %d", got)
	}
}

// TestCheckNamesAbsentDestinations: check says what the store keeps for a destination that the config does not name, and
// touches nothing.
func TestCheckNamesAbsentDestinations(t *testing.T) {
	dir := makeStore(t, 100)
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	text := fmt.Sprintf("gateway: g\nbuffer: {path: %q}\ndestinations: [{name: cloud, url: \"mqtt://127.0.0.1\"}]\ndevices:\n"+
		"  - {name: d, driver: modbus, url: \"tcp://127.0.0.1:1\", groups: [{name: g, interval: 1s, tags: [{name: a, address: \"holding:1\"}]}]}\n", dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	before := listDir(t, dir)
	out := mustSay(t, []string{`for destination "old", which this config does not name`, "millrace buffer forget old"}, "check", "--config", file)
	if strings.Contains(out, "forget cloud") {
		t.Errorf("check names a destination of the config:\n%s", out)
	}
	if after := listDir(t, dir); after != before {
		t.Errorf("check changed the store: %s, before %s", after, before)
	}
}
