//go:build !race

package gateway

import "time"

// hoursLast is how long a seed of TestHours plays.
const hoursLast = time.Hour
