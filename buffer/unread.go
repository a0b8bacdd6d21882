package buffer

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// An error of the disk as a page is read (EIO) is not always the end of the page: a card that was reset, a cable, a controller
// give it, too. So what stands there is not given up at once. The segment is asked for again until readPatience is over, its records wait
// unacknowledged, and readers get ErrUnreadable; only then it is damaged, as one with a bad checksum is at once.
const (
	readPatience = time.Minute
	askEvery     = 5 * time.Second
)

// shortage reports whether the system is short of something: no file is to blame for that.
func shortage(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOSPC, syscall.EDQUOT, syscall.EINTR, syscall.EAGAIN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// mayPass reports whether the system gives an error for a file that is there, as for a page that the disk does not give or a file that may not be read.
func mayPass(err error) bool {
	var e syscall.Errno
	return errors.As(err, &e) && e != syscall.EISDIR && !errors.Is(err, os.ErrNotExist) && !shortage(err)
}

// wait has a segment be asked for again, unless that was long enough. commitMu is held.
func (b *Buffer) wait(s *segment, cause error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case s.gone || b.readPatience == 0:
		return false
	case s.unread.since.IsZero():
		s.unread.since, s.unread.cause = time.Now(), cause
		b.log.Error("the disk gives an error for pages of a segment; they are asked for again before what stands on them is given up", "file", s.path, "for", b.readPatience, "error", cause)
	}
	return time.Since(s.unread.since) < b.readPatience
}

// askAgain looks whether the disk gives the pages again that it failed to give. commitMu is held.
func (b *Buffer) askAgain() {
	b.mu.Lock()
	s := b.unread()
	b.mu.Unlock()
	if s == nil || time.Since(b.asked) < askEvery {
		return
	}
	b.asked = time.Now()
	fails := unreadable(s.path)
	b.mu.Lock()
	was := s.unread
	over := time.Since(was.since) >= b.readPatience
	if !fails || over {
		s.unread.since, s.unread.cause = time.Time{}, nil
		b.notify()
	}
	b.mu.Unlock()
	switch {
	case !fails:
		b.log.Info("the disk gives all pages of the segment again", "file", s.path, "after", time.Since(was.since).Round(time.Second))
	case over:
		b.salvageNow(s, was.cause)
	}
}

// unread returns the first segment of which the disk fails to give pages, nil for none. mu is held.
func (b *Buffer) unread() *segment {
	for _, s := range b.segs {
		if !s.unread.since.IsZero() {
			return s
		}
	}
	return nil
}

// later says of an error of a segment that its records are to be asked for later, where they are.
func (b *Buffer) later(s *segment, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.unread.since.IsZero() && b.st.takenErr == nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnreadable, err)
}

// unreadable reports whether the system gives an error for a file, or for any page of it, that may pass.
func unreadable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return mayPass(err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	buf := make([]byte, 64*pageSize)
	for at := int64(0); ; at += int64(len(buf)) {
		switch n, err := f.ReadAt(buf, at); {
		case mayPass(err):
			return true
		case n < len(buf):
			return false
		}
	}
}
