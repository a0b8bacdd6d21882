package drivertest

import (
	"fmt"
	"os"
	"testing"
)

// Lacks ends a test that needs what this machine has not: it skips, or fails with INTEROP=required in the environment, as CI has it, so that no
// check goes missing unseen.
func Lacks(t testing.TB, format string, args ...any) {
	t.Helper()
	says := fmt.Sprintf(format, args...)
	if os.Getenv("INTEROP") == "required" {
		t.Fatal(says)
	}
	t.Skip(says)
}
