package modbus

import (
	"os"
	"strings"
	"testing"

	"millrace/drivers"
	"millrace/drivers/drivertest"
)

// TestSerialBeyondSelect opens a serial line when more than 1,024 files are open: the library panics then, which must not cost
// the gateway its life, and the line must read again when there is room.
func TestSerialBeyondSelect(t *testing.T) {
	b := benchOn(t, "rtu", 1, 5e9, tags("holding:1"))
	var files []*os.File
	for range 1100 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			drivertest.Lacks(t, "too few descriptors: %v", err)
		}
		files = append(files, f)
	}
	b.open(t)
	_, err := b.read(drivers.Ref{})
	for _, f := range files {
		f.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "more than 1,000 files") {
		t.Errorf("%v, want words about the files", err)
	}
	if err := b.mustBeWell("with room", 3); err != nil {
		t.Error(err)
	}
}
