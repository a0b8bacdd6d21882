//go:build !linux

package buffer

import (
	"errors"
	"os"
)

// punch is not possible here.
func punch(*os.File, int64, int64) error { return errors.ErrUnsupported }
