//go:build !race

package gateway

import (
	"testing"
	"time"
)

// hoursLast is how long a seed of TestHours plays.
const hoursLast = time.Hour

// alone does nothing: only the race detector needs it.
func alone(*testing.T) {}
