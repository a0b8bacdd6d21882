package modbus

import (
	goflag "flag"
	"os"
	"testing"
)

// TestMain runs eight of the tests at once that say t.Parallel: those have a clock of their own, or excuse what a busy machine does, and
// mostly wait. All others run one after the other, before them.
func TestMain(m *testing.M) {
	goflag.Parse()
	if f := goflag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("8")
	}
	os.Exit(m.Run())
}
