package modbustool

import (
	"strings"
	"testing"
)

func TestUnitIsRefusedInWords(t *testing.T) {
	for _, unit := range []string{"300", "-1", "x"} {
		if _, err := run(t, "read", "tcp://127.0.0.1:1", "holding:1", "--unit", unit); err == nil || !strings.Contains(err.Error(), "a unit id is a number from 0 to 255") || strings.Contains(err.Error(), "strconv") {
			t.Errorf("unit %s: %v", unit, err)
		}
	}
}
