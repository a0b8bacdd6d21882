package modbustool

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/configs/templates"
	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/modbus"
	"millrace/drivers/telemetry"
)

// TestSimulateSunSpec serves each SunSpec template: identify finds the chain of models and the template, and the length of the model
// reaches as far as the template's tags.
func TestSimulateSunSpec(t *testing.T) {
	for name, model := range sunspecModels {
		tpl, err := templates.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		last := 0
		for _, g := range expanded(t, tpl) {
			for i := range g.Tags {
				last = max(last, stretchOf(t, &g.Tags[i]).last)
			}
		}
		if end := 40070 + 2 + int(model.length); last > end {
			t.Errorf("%s: a tag ends at %d, the model at %d", name, last, end)
		}
		for _, base := range []int{40070, 40069, 70, 50070} {
			url := simulating(t, 1, name, "--unit", "4", "--base", fmt.Sprint(base))[0]
			out, err := run(t, "identify", url, "--unit", "4")
			if err != nil {
				t.Fatal(err)
			}
			common := 66
			if base == 40069 {
				common = 65
			}
			has(t, out, fmt.Sprintf("SunSpec from holding:%d on\n    model 1 at holding:%d, %d registers\n    model %d at holding:%d, %d registers: millrace template %s --base %d\n",
				base-common-4, base-common-2, common, model.id, base, model.length, name, base))
		}
	}
}

func expanded(t *testing.T, tpl *templates.Template) []drivers.Group {
	t.Helper()
	c, err := templateConnection(tpl, &simulateFlags{transport: "tcp", unit: 1})
	if err != nil {
		t.Fatal(err)
	}
	return c.Devices[0].Groups
}

// TestSimulateTLS reads a template over tcp+tls with the certificate that was written, and is refused without it.
func TestSimulateTLS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	url := simulating(t, 1, "eastron-sdm120", "--transport", "tcp+tls", "--ca-file", file)[0]
	read := func(options map[string]string) error {
		d, err := modbus.Protocol().New(drivers.Connection{URL: url, Devices: []drivers.Device{{Name: "d", URL: url, Timeout: 10 * time.Second, Options: options,
			Groups: []drivers.Group{{Name: "g", Interval: time.Second, Tags: []telemetry.Tag{{Name: "v", Address: "input:0", Type: "float32"}}}}}}})
		if err != nil {
			return err
		}
		defer d.Close()
		if err := d.Connect(t.Context()); err != nil {
			return err
		}
		readings, err := d.Read(context.Background(), drivers.Ref{}, nil)
		if v, ok := readings[0].Value.Float(); err == nil && (!ok || v < 200 || v > 250) {
			t.Errorf("%+v is no voltage", readings[0])
		}
		return err
	}
	if err := read(map[string]string{"ca_file": file}); err != nil {
		t.Error(err)
	}
	if read(map[string]string{}) == nil {
		t.Error("a certificate that nobody vouches for was taken")
	}
	if _, err := run(t, "simulate", "eastron-sdm120", "--transport", "tcp+tls", "--listen", "127.0.0.1:0"); err == nil {
		t.Error("tcp+tls without --ca-file was taken")
	}
}

const twoSecureLines = `
gateway: gw
destinations: [{name: cloud, url: "mqtt://h", topic: "t/{device}/{group}"}]
devices:
  - {name: a, driver: modbus, url: "tcp+tls://10.0.0.7", groups: [{name: g, interval: 1s, tags: [{name: n, address: "holding:5"}]}]}
  - {name: b, driver: modbus, url: "tcp+tls://10.0.0.8", groups: [{name: g, interval: 1s, tags: [{name: n, address: "holding:5"}]}]}
`

// TestSimulateKeepsTheFile: a simulator that cannot serve leaves the file alone, whose certificate another one serves, and one that does
// leaves nothing beside it.
func TestSimulateKeepsTheFile(t *testing.T) {
	folder := t.TempDir()
	file, link := filepath.Join(folder, "ca.pem"), filepath.Join(folder, "link.pem")
	url := simulating(t, 1, "eastron-sdm120", "--transport", "tcp+tls", "--ca-file", file)[0]
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cfg := filepath.Join(folder, "two.yaml") // its first line can be served, and not its second
	if err := os.WriteFile(cfg, []byte(twoSecureLines), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := strings.TrimPrefix(url, "tcp+tls://")
	host, port, _ := net.SplitHostPort(taken)
	last, _ := strconv.Atoi(port)
	for _, args := range [][]string{{"eastron-sdm120", "--transport", "tcp+tls", "--listen", taken}, {cfg, "--listen", net.JoinHostPort(host, strconv.Itoa(last-1))}} {
		if _, err := run(t, append([]string{"simulate", "--for", "1s", "--ca-file", file}, args...)...); err == nil || !strings.Contains(err.Error(), "serve tcp+tls://") {
			t.Errorf("%v: %v, want that the port is in use", args, err)
		}
		if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%v: the file has changed: %v", args, err)
		}
	}
	if err := os.Symlink(file, link); err != nil {
		drivertest.Lacks(t, "no links here: %v", err)
	}
	simulating(t, 1, "eastron-sdm120", "--transport", "tcp+tls", "--ca-file", link)
	after, err := os.ReadFile(file)
	info, _ := os.Stat(file)
	if at, e := os.Readlink(link); err != nil || e != nil || at != file || bytes.Equal(before, after) || runtime.GOOS != "windows" && info.Mode() != 0o644 {
		t.Errorf("through a link: %v, %v, %v", err, e, info.Mode())
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 3 {
		t.Errorf("%v, %v are left", left, err)
	}
	if _, err := run(t, "simulate", "eastron-sdm120", "--transport", "tcp+tls", "--listen", "127.0.0.1:0", "--ca-file", folder); err == nil || !strings.Contains(err.Error(), "write --ca-file: \""+folder+"\" is not a regular file") {
		t.Errorf("a folder: %v", err)
	}
}
