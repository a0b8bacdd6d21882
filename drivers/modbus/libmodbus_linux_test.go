package modbus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// libmodbus compiles testdata/libmodbus.c.
func libmodbus(t *testing.T) string {
	t.Helper()
	_, gcc := exec.LookPath("gcc")
	_, header := os.Stat("/usr/include/modbus/modbus.h")
	need(t, "gcc, or Debian's libmodbus-dev", gcc == nil && header == nil)
	binary := filepath.Join(t.TempDir(), "libmodbus")
	if out, err := exec.Command("gcc", "-O1", "-Wall", "-Werror", "-I/usr/include/modbus", "-o", binary, "testdata/libmodbus.c", "-lmodbus").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// cable is two pseudo-terminals, each the other's far end.
func cable(t *testing.T) (one, other string) {
	t.Helper()
	_, err := exec.LookPath("socat")
	need(t, "socat", err == nil)
	one, other = filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "other")
	run := exec.Command("socat", "pty,rawer,link="+one, "pty,rawer,link="+other)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { run.Process.Kill(); run.Wait() })
	for range 1000 {
		if _, err = os.Stat(other); err == nil {
			return one, other
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(err)
	return "", ""
}

// serving starts a foreign device and returns what it says that it holds, a line each.
func serving(t *testing.T, run *exec.Cmd) (lines []string) {
	t.Helper()
	run.Stderr = os.Stderr
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { run.Process.Kill(); run.Wait() })
	for s := bufio.NewScanner(out); s.Scan(); {
		if s.Text() == "READY" {
			return lines
		}
		lines = append(lines, s.Text())
	}
	t.Fatalf("%q does not start", run.Args)
	return nil
}

// told makes the tags of a line, and what each is.
func told(t *testing.T, line string) (list []telemetry.Tag, want telemetry.Value) {
	t.Helper()
	var typ, order, number, value string
	if n, _ := fmt.Sscan(line, &typ, &order, &number, &value); n != 4 {
		t.Fatalf("the device says %q", line)
	}
	how := typ + " order=" + order
	switch {
	case typ == "coil" || typ == "discrete":
		return []telemetry.Tag{tagOf(typ + ":" + number)}, telemetry.Bool(value == "1")
	case typ == "bits" || typ == "bool":
		number, how = number+"."+order, ""
	case order == "low" || order == "high":
		how = typ + " byte=" + order
	}
	k, _ := parseKind(typ)
	if !kinds[k].ordered {
		how = strings.TrimSuffix(how, " order=ABCD")
	}
	if k.long() {
		how += " length=12"
	}
	list = []telemetry.Tag{tagOf("holding:" + number + " " + how), tagOf("input:" + number + " " + how)}
	return list, plainValue(t, typ, value)
}

// plainValue reads a value as Go's library does, which shares nothing with the driver.
func plainValue(t *testing.T, typ, text string) telemetry.Value {
	t.Helper()
	var err error
	switch k, _ := parseKind(typ); {
	case k == kindBool:
		return telemetry.Bool(text == "1")
	case k == kindBytes:
		return telemetry.String(text)
	case k == kindString:
		var b []byte
		if b, err = hex.DecodeString(strings.Trim(text, "-")); err == nil {
			return telemetry.String(string(b))
		}
	case k.time():
		var at time.Time
		if at, err = time.Parse(time.RFC3339, text); err == nil {
			return telemetry.Time(at)
		}
	default:
		return number64(t, typ, text)
	}
	t.Fatal(err)
	return telemetry.Value{}
}

// number64 reads a number as strconv does, which shares nothing with the driver.
func number64(t *testing.T, typ, text string) (v telemetry.Value) {
	t.Helper()
	var err error
	switch {
	case strings.HasPrefix(typ, "float"):
		var f float64
		if f, err = strconv.ParseFloat(text, 64); typ == "float64" {
			v = telemetry.Float64(f)
		} else {
			v = telemetry.Float32(float32(f))
		}
	case strings.HasPrefix(typ, "int"):
		var i int64
		i, err = strconv.ParseInt(text, 10, 64)
		v = telemetry.Int(i)
	default:
		var u uint64
		u, err = strconv.ParseUint(text, 10, 64)
		v = telemetry.Uint(u)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestLibmodbus reads every numeric type in every order from a device on libmodbus, out of both tables of registers, and writes
// each to another place, where the same registers must then stand.
func TestLibmodbus(t *testing.T) {
	binary := libmodbus(t)
	for _, transport := range []string{"tcp", "rtu"} {
		t.Run(transport, func(t *testing.T) {
			where, url := fmt.Sprint(drivertest.FreePort(t)), ""
			if url = "tcp://127.0.0.1:" + where; transport == "rtu" {
				var other string
				where, other = cable(t)
				url = "rtu://" + other
			}
			foreignDevice(t, url, serving(t, exec.Command(binary, "serve", transport, where)), 11*4+4+4) // the ordered types, those of one register, bytes and bits
		})
	}
}

// foreignDevice reads what a device says that it holds, at least so many kinds of tag, and writes some of it.
func foreignDevice(t *testing.T, url string, lines []string, least int) {
	var list []telemetry.Tag
	var want []telemetry.Value
	seen := map[string]bool{}
	for _, line := range lines {
		more, value := told(t, line)
		seen[fmt.Sprint(more[0].Type, more[0].Options)] = true
		for _, tag := range more {
			list, want = append(list, tag), append(want, value)
		}
	}
	if len(seen) < least {
		t.Fatalf("%d kinds of tag, want %d: %v", len(seen), least, seen)
	}
	copies, raw, writes := asides(t, list, want)
	dev := device(url, 17, list, copies, raw)
	dev.Timeout = 10 * time.Second
	d := connectSoon(t, drivers.Connection{URL: url, Devices: []drivers.Device{dev}})
	readings, err := d.Read(context.Background(), drivers.Ref{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range readings {
		if r := &readings[i]; r.Value != want[i] || r.Reason != "" {
			t.Errorf("%q: %+v, want %+v", list[i].Name, *r, want[i])
		}
	}
	t.Logf("%d readings of %d kinds", len(readings), len(seen))
	writeAside(t, d, writes, copies)
}

// aside is how far from the values they are written again.
const aside = 12000

// asides are some values of each kind at another place, where the device holds 0, and in turn each register of the one place
// and of the other. Every third is written with function 23.
func asides(t *testing.T, list []telemetry.Tag, want []telemetry.Value) (copies, raw []telemetry.Tag, writes []drivers.Write) {
	times := map[string]int{}
	for i, tag := range list {
		number, holding := strings.CutPrefix(tag.Address, "holding:")
		kind := fmt.Sprint(tag.Type, tag.Options)
		times[kind]++
		part := tag.Options["byte"] != "" || strings.Contains(number, ".")
		if !holding || times[kind]%8 != 1 || tag.Type == "float16" || part {
			continue
		}
		at, _ := strconv.Atoi(number)
		for n := range int(fieldOf(t, tag).count) {
			raw = append(raw, tagOf(fmt.Sprint("holding:", at+n)), tagOf(fmt.Sprint("holding:", at+aside+n)))
		}
		tag.Address = fmt.Sprint("holding:", at+aside)
		if function := []string{"", "16", "23"}[len(copies)%3]; function != "" {
			tag.Options = maps.Clone(tag.Options)
			tag.Options["write_function"] = function
		}
		writes = append(writes, drivers.Write{Group: drivers.Ref{Group: 1}, Tag: len(copies), Value: want[i]})
		copies = append(copies, tag)
	}
	return copies, raw, writes
}

func writeAside(t *testing.T, d *driver, writes []drivers.Write, copies []telemetry.Tag) {
	for i, err := range d.Write(context.Background(), writes) {
		if err != nil {
			t.Errorf("%q: write %+v: %v", copies[i].Name, writes[i].Value, err)
		}
	}
	readings, err := d.Read(context.Background(), drivers.Ref{Group: 2}, nil)
	if err != nil {
		t.Fatal(err)
	}
	zero := 0
	for i := 0; i < len(readings); i += 2 {
		if readings[i].Value != readings[i+1].Value || readings[i].Reason != "" {
			t.Errorf("register %d of %d: the device laid %+v, the driver wrote %+v", i/2, len(readings)/2, readings[i], readings[i+1])
		}
		if readings[i].Value.Bits == 0 {
			zero++
		}
	}
	t.Logf("%d values written, %d registers compared, %d of them 0", len(writes), len(readings)/2, zero)
	if zero > len(readings)/6 {
		t.Errorf("%d of %d registers are 0", zero, len(readings)/2)
	}
}

func fieldOf(t *testing.T, tag telemetry.Tag) field {
	t.Helper()
	r := &reporter{}
	f, ok := parseField(&tag, &settings{maxRegisters: 125, zone: time.UTC}, r)
	if !ok {
		t.Fatal(r.err())
	}
	return f
}

// TestLibmodbusClient has libmodbus write to and read from the simulated device.
func TestLibmodbusClient(t *testing.T) {
	binary := libmodbus(t)
	for _, transport := range []string{"tcp", "rtu"} {
		sim := startSim(t, modbussim.Options{Transport: transport})
		u := sim.Unit(5)
		u.SetRegisters(modbussim.Input, 7, 7, 0x8001, 9)
		u.SetBits(modbussim.Discrete, 4, true, true, false, true)
		for i := range uint16(125) {
			u.SetRegisters(modbussim.Holding, 2000+i, 2000+i)
		}
		where := sim.Addr()
		if _, port, err := net.SplitHostPort(where); err == nil {
			where = port
		}
		out, err := exec.Command(binary, "ask", transport, where).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", transport, err, out)
		}
		want := `16 done
6 done
22 done
15 done
5 done
3 0000 1256 ffff 0000 8000 beef 0000
4 0007 8001 0009
1 011110000110
2 011010000
longest 07d0
23 07d0
past the end Illegal data address
another unit Target device failed to respond
`
		if string(out) != want {
			t.Errorf("%s: libmodbus says\n%s\nwant\n%s", transport, out, want)
		}
		if got := hex.EncodeToString(u.Held(modbussim.Holding, 100, 5)); got != "1256ffff00008000beef" {
			t.Errorf("%s: the device holds %s", transport, got)
		}
		if got := u.Held(modbussim.Coil, 30, 10); !bytes.Equal(got, []byte{1, 1, 1, 1, 0, 0, 0, 0, 1, 1}) {
			t.Errorf("%s: the device holds the coils %v", transport, got)
		}
	}
}
