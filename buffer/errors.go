package buffer

import (
	"errors"
	"strings"
	"syscall"
)

// The errors a caller may ask for with errors.Is.
var (
	// ErrFull means that the policy is drop-newest and there is no room: the record was refused and counted as dropped.
	ErrFull = errors.New("buffer full: record refused by the drop-newest policy; it is counted, and accepted again when space is free")
	// ErrClosed means that the buffer was closed.
	ErrClosed = errors.New("buffer is closed")
	// ErrTooLarge means that a record is larger than the buffer can hold (MaxRecord says how large it may be): it was refused
	// and counted as dropped. Also that a dictionary entry is.
	ErrTooLarge = errors.New("larger than the store takes")
	// ErrNotDurable means that, in strict mode, the fsync failed: the record is kept in memory and written when the disk recovers.
	ErrNotDurable = errors.New("record not on disk yet; it is kept in memory and written when the disk recovers")
	// ErrInUse means that another process has the store open.
	ErrInUse = errors.New("store is in use by another process")
	// ErrNewer means that the store was written by a newer version of millrace.
	ErrNewer = errors.New("store was written by a newer version")
	// ErrNoDestination means that a destination is not known to the store.
	ErrNoDestination = errors.New("no such destination")
	// ErrUnreadable means that the disk gives an error for what is to be read: it is asked for again for a minute before that is believed.
	ErrUnreadable = errors.New("the disk does not give it now; it is asked for again")
	// ErrNotFound means that there is no such record or entry.
	ErrNotFound = errors.New("not found")

	errDamaged = errors.New("damaged")
	errEmpty   = errors.New("segment holds nothing yet") // its creation was cut short
)

// reasonOf is an error in words, of which each says something.
func reasonOf(err error) string {
	if err == nil || err == errDamaged {
		return "found damaged before"
	}
	return strings.ReplaceAll(err.Error(), ": "+errDamaged.Error(), "")
}

// IsDiskFull reports whether an error says that the disk, or what this user may have of it, is full: others may make room.
func IsDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
