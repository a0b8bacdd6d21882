package drivertest

import (
	"bytes"
	"errors"
	"runtime"
	"time"
)

// census is the set of the goroutines that ran at one moment, by their number.
type census map[string]bool

func goroutines() census {
	c := census{}
	for _, stack := range stacks() {
		c[number(stack)] = true
	}
	return c
}

// gone waits until no goroutine runs that did not run at the census, and returns the stacks of those
// that still do after the wait. The simulated device's own goroutines end with their connections.
func (c census) gone(wait time.Duration) error {
	end := time.Now().Add(wait)
	for {
		var left [][]byte
		for _, stack := range stacks() {
			if !c[number(stack)] && !bytes.Contains(stack, []byte("testing.tRunner.func")) {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return errors.New(string(bytes.Join(left, []byte("\n\n"))))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func stacks() [][]byte {
	buf := make([]byte, 1<<20)
	return bytes.Split(buf[:runtime.Stack(buf, true)], []byte("\n\n"))
}

// number returns the "goroutine 17" of a stack's first line.
func number(stack []byte) string {
	head, _, _ := bytes.Cut(stack, []byte(" ["))
	return string(bytes.TrimSpace(head))
}
