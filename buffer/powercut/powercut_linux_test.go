package powercut

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace/buffer"
)

var (
	statesFlag = flag.Int("powercut.states", 0, "crash states to try; 0 = 40, or 1200 with MILLRACE_LONG=1")
	seedFlag   = flag.Uint64("powercut.seed", 0, "seed of workloads and cuts; 0 = a new one")
)

// TestMain is also the beginning of the workload's process.
func TestMain(m *testing.M) {
	if os.Getenv(planEnv) != "" {
		os.Exit(runWorkload())
	}
	os.Exit(m.Run())
}

// plans returns the workloads: each is another way to use the store on another way to use ext4.
func plans() []plan {
	return []plan{
		{Name: "interval", Mount: "commit=1", MaxSize: 16 << 20, Cycles: 3, Steps: 120},
		{Name: "strict", Mount: "commit=1", MaxSize: 16 << 20, Cycles: 3, Steps: 40, Strict: true, Producers: 4},
		{Name: "drop-oldest", Mount: "data=writeback", MaxSize: 4 << 20, Cycles: 2, Steps: 1100, Hoard: true, Tight: true},
		{Name: "drop-newest", Mount: "", MaxSize: 4 << 20, Cycles: 3, Steps: 500, WhenFull: buffer.DropNewest, Tight: true},
		{Name: "strict and full", Mount: "data=journal", MaxSize: 4 << 20, Cycles: 2, Steps: 300, Strict: true, Producers: 6, Hoard: true, Tight: true},
	}
}
