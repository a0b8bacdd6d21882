//go:build !unix

package modbus

import (
	"testing"
	"time"
)

// cpu is not known here; the tests only log it.
func cpu(*testing.T) time.Duration { return 0 }
