package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"millrace/drivers/modbus/modbussim"
)

// TestWriteCommand: a negative number is a value wherever flags stand, and a name that the gateway does not have is answered so.
func TestWriteCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	file, stop := running(t, dir)
	defer stop()
	writeFile(t, file, readFile(t, file)+`          - {name: trim, address: "holding:2", type: int16}
writes: [{device: meter-1, tag: trim, min: -10, max: 10, rate: 100/s}]
`)
	until(t, "is in force", "reload", "--config", file)
	for _, args := range [][]string{{"meter-1/trim", "-5", "--config", file}, {"-c", file, "meter-1/trim", "-5"}, {"--config", file, "--", "meter-1/trim", "-5"}} {
		until(t, "meter-1/trim = -5, confirmed", append([]string{"write"}, args...)...) // the reload has made the connection anew
	}
	if code, _ := millrace("write", "meter-1/trim", "-11", "--config", file); code != exitFailed {
		t.Errorf("out of range: exit %d", code)
	}
	code := exitOK
	if said := stderrOf(t, func() { code, _ = millrace("write", "meter-1", "trim", "5", "--config", file) }); code != exitUsage || !strings.Contains(said, "name the tag as DEVICE/TAG") {
		t.Errorf("without a slash: exit %d\n%s", code, said)
	}
	if code := execute([]string{"write", "meter-1/trim", "-x", "--config", file}, io.Discard); code != exitUsage {
		t.Errorf("an unknown flag: exit %d", code)
	}
	loose, err := modbussim.Start(modbussim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(loose.Close)
	loose.Unit(1)
	mustSay(t, []string{"-5 written and confirmed; now -5"}, "modbus", "write", loose.URL(), "holding:100", "-5", "--type", "int16", "--yes")
	for name, want := range map[string]string{
		"metre-1/trim":  `no device "metre-1"; did you mean "meter-1"?`,
		"pump/trim":     `no device "pump"; ` + "`millrace values` shows all",
		"meter-1/trin":  `device "meter-1" has no tag "trin"; did you mean "trim"?`,
		"meter-1/flow":  `device "meter-1" has no tag "flow"; ` + "`millrace values meter-1` shows all",
		"meter-1/":      `device "meter-1" has no tag ""; ` + "`millrace values meter-1` shows all",
		"/trim":         "name the tag as DEVICE/TAG",
		"meter-1/power": "not allowed",
	} {
		if _, err := write(t.Context(), dir, name, "1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("write to %s: %v; want %q", name, err, want)
		}
	}
}
