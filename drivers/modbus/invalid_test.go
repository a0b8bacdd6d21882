package modbus

import (
	"testing"

	"millrace/drivers/telemetry"
)

// TestInvalidIsTheValueOfTheDevice compares what was written with the value that the device's bits make.
func TestInvalidIsTheValueOfTheDevice(t *testing.T) {
	for _, c := range []struct {
		kind kind
		text string
		is   telemetry.Value
		not  telemetry.Value
	}{
		{kindFloat32, "9999.9", telemetry.Float32(9999.9), telemetry.Float32(9999.8)},
		{kindBCD16, "0x0010", telemetry.Uint(10), telemetry.Uint(16)},
		{kindInt16, "0x8000", telemetry.Int(-32768), telemetry.Int(32767)},
		{kindInt16, "-5..-1", telemetry.Int(-3), telemetry.Int(0)},
		{kindUint64, "18446744073709551615", telemetry.Uint(1<<64 - 1), telemetry.Uint(1<<64 - 2)},
	} {
		var k check
		if m := k.parseInvalid(c.text, c.kind, limitsOf(c.kind, nil)); m != nil {
			t.Errorf("%s of %s: %s", c.text, c.kind, m.what)
		} else if !k.unavailable(c.is) || k.unavailable(c.not) {
			t.Errorf("%s of %s: %v is %v, %v is %v", c.text, c.kind, c.is, k.unavailable(c.is), c.not, k.unavailable(c.not))
		}
	}
}
