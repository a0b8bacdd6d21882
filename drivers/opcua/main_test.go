package opcua

import (
	"flag"
	"os"
	"sync"
	"testing"
)

// TestMain runs three of the tests at once that say t.Parallel, which mostly wait for node-opcua. All others run one after the other, before them.
// More node-opcuas at once take the processors from each other, and do not answer in time.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("4") // they mostly wait, and node-opcuas start one after another
	}
	code := m.Run()
	common.stop()
	os.Exit(code)
}

// sharedNode is a node-opcua for all tests that do nothing to it: each takes some seconds of a processor to start.
type sharedNode struct {
	mu       sync.Mutex
	endpoint string
	dir      string
	end      func()
}

var common sharedNode

func (n *sharedNode) start(t *testing.T) string {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.end != nil {
		return n.endpoint
	}
	if n.dir == "" {
		dir, err := os.MkdirTemp("", "node-opcua")
		if err != nil {
			t.Fatal(err)
		}
		n.dir = dir
	}
	n.endpoint, _, n.end = startNode(t, n.dir, nil)
	return n.endpoint
}

func (n *sharedNode) stop() {
	if n.end != nil {
		n.end()
	}
	os.RemoveAll(n.dir)
}
