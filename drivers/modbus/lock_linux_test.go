package modbus

import (
	"context"
	"strings"
	"testing"
)

// TestOneMaster: a serial line has one owner, root's processes included, and is free again once that closes it.
func TestOneMaster(t *testing.T) {
	first := benchOn(t, "rtu", 1, 1e9, tags("holding:1")).open(t)
	second := benchOn(t, "rtu", 1, 1e9, tags("holding:1"))
	second.conn.URL, second.conn.Devices[0].URL = first.conn.URL, first.conn.URL
	d, err := Protocol().New(second.conn)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Connect(context.Background()); err == nil || !strings.Contains(err.Error(), "another") {
			t.Errorf("a second master: %v", err)
		}
	}
	if err := first.driver.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Connect(context.Background()); err != nil {
		t.Errorf("the line is free, and does not open: %v", err)
	}
	defer d.Close()
}
