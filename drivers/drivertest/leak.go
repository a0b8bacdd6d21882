package drivertest

import (
	"bytes"
	"errors"
	"runtime"
	"time"
)

// census counts the running goroutines by the function that started them. Counted, not listed by number,
// because a simulated device that went down and up has a new goroutine for an old one.
type census map[string]int

func goroutines() census {
	c := census{}
	for _, stack := range stacks() {
		c[creator(stack)]++
	}
	return c
}

// gone waits until no more goroutines run than at the census, and returns the stacks of those that still
// do after the wait. The simulated device's own goroutines end with their connections.
func (c census) gone(wait time.Duration) error {
	end := time.Now().Add(wait)
	for {
		left := c.surplus()
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return errors.New(string(bytes.Join(left, []byte("\n\n"))))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (c census) surplus() [][]byte {
	var left [][]byte
	seen := census{}
	for _, stack := range stacks() {
		who := creator(stack)
		if seen[who]++; seen[who] > c[who] {
			left = append(left, stack)
		}
	}
	return left
}

func stacks() [][]byte {
	buf := make([]byte, 1<<20)
	return bytes.Split(buf[:runtime.Stack(buf, true)], []byte("\n\n"))
}

// creator returns the function that a stack says it was created by, "" for the first goroutine.
func creator(stack []byte) string {
	_, after, _ := bytes.Cut(stack, []byte("\ncreated by "))
	who, _, _ := bytes.Cut(after, []byte(" in goroutine "))
	return string(who)
}
