//go:build !windows

package demo

import "os"

// obeysEscapes reports whether the terminal f understands escape sequences.
func obeysEscapes(*os.File) bool { return os.Getenv("TERM") != "dumb" }
