package modbus

import (
	goflag "flag"
	"os"
	"testing"
)

// TestMain runs eight of the tests at once that say t.Parallel, which mostly wait. All others run one after the other, before them: in a bubble a
// test takes all of a processor, which would be missing to those that wait for a device.
func TestMain(m *testing.M) {
	goflag.Parse()
	if f := goflag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("8")
	}
	os.Exit(m.Run())
}
