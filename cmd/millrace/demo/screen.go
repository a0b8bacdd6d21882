package demo

import (
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// screen redraws a terminal in place, on its alternate page, so that what stood there before stays.
type screen struct {
	out     *os.File
	restore func()
}

// isTerminal reports whether f is a terminal that obeys escape sequences.
func isTerminal(f any) (*os.File, bool) {
	file, ok := f.(*os.File)
	return file, ok && term.IsTerminal(int(file.Fd())) && obeysEscapes(file)
}

// colourful reports whether w wants colour: a terminal, and nobody asked for none (no-color.org).
func colourful(w io.Writer) ink {
	_, ok := isTerminal(w)
	return ink(ok && os.Getenv("NO_COLOR") == "")
}

// openScreen takes over the terminal. keys gets what a person presses and may be nil when stdin is none.
func openScreen(out *os.File, in *os.File) (s *screen, keys <-chan byte) {
	s = &screen{out: out, restore: func() {}}
	if term.IsTerminal(int(in.Fd())) {
		if old, err := term.MakeRaw(int(in.Fd())); err == nil {
			s.restore = sync.OnceFunc(func() { _ = term.Restore(int(in.Fd()), old) })
			keys = readKeys(in)
		}
	}
	_, _ = io.WriteString(out, "\x1b[?1049h\x1b[?25l\x1b[2J")
	return s, keys
}

// readKeys reads until stdin ends. A blocked read of a terminal cannot be called off, so its goroutine
// lasts until the process ends.
func readKeys(in *os.File) <-chan byte {
	keys := make(chan byte, 8)
	go func() {
		defer close(keys)
		var b [1]byte
		for {
			n, err := in.Read(b[:])
			if err != nil {
				return
			}
			if n == 1 {
				keys <- b[0]
			}
		}
	}()
	return keys
}

func (s *screen) size() (width, height int) {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil {
		return 80, 24
	}
	return width, height
}

// draw shows the lines in one write, so that nothing flickers. In raw mode a line needs its own return.
func (s *screen) draw(lines []string) {
	var b strings.Builder
	b.WriteString("\x1b[?2026h\x1b[H")
	for n, line := range lines {
		if n > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + "\x1b[K")
	}
	b.WriteString("\x1b[J\x1b[?2026l")
	_, _ = io.WriteString(s.out, b.String())
}

// close gives the terminal back as it was. It may be called twice.
func (s *screen) close() {
	_, _ = io.WriteString(s.out, "\x1b[?25h\x1b[?1049l")
	s.restore()
}
