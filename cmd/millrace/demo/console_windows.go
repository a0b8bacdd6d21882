package demo

import (
	"os"

	"golang.org/x/sys/windows"
)

// obeysEscapes turns escape sequences on, which an older Windows console leaves off, and reports success.
func obeysEscapes(f *os.File) bool {
	console := windows.Handle(f.Fd())
	var mode uint32
	if windows.GetConsoleMode(console, &mode) != nil {
		return false
	}
	return windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
