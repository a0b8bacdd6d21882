package main

import (
	"io"
	"strings"
	"testing"
)

// TestUnknownCommand: every group of commands refuses a name that it does not have, as the root does.
func TestUnknownCommand(t *testing.T) {
	for _, group := range []string{"", "buffer", "buffer quarantine", "modbus", "opcua", "opcua trust", "config"} {
		if got := execute(append(strings.Fields(group), "no-such"), io.Discard); got != exitUsage {
			t.Errorf("millrace %s no-such exits with %d, want %d", group, got, exitUsage)
		}
		if got := execute(strings.Fields(group), io.Discard); got != exitOK {
			t.Errorf("millrace %s exits with %d, want %d and its help", group, got, exitOK)
		}
	}
}
