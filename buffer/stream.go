package buffer

import "fmt"

// Bounds of a stream's parts.
const (
	maxAccountName = 1 << 10
	maxDict        = 8 << 20
	maxStreams     = 1 << 16
)

// Stream is what records of one kind have in common: the account they are counted under and a
// dictionary entry, stored once per segment.
type Stream struct {
	b       *Buffer
	account *account
	dict    string
	id      uint32 // index in order of appearance, of this process only
	warned  bool   // that a record of it is too large
}

// Stream returns the stream of an account (a device's name) with a dictionary entry (a schema's bytes,
// at most 8 MiB and an eighth of a segment). The same arguments give the same stream. dict is copied.
func (b *Buffer) Stream(name string, dict []byte) (*Stream, error) {
	if name == "" || len(name) > maxAccountName {
		return nil, fmt.Errorf("open stream %q: account name of %d bytes; give 1 to %d", name, len(name), maxAccountName)
	}
	if int64(len(dict)) > min(maxDict, b.o.SegmentSize/8) {
		return nil, fmt.Errorf("open stream %q: dictionary of %d bytes: %w", name, len(dict), ErrTooLarge)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stream(name, string(dict))
}

// stream is Stream with mu held and the arguments checked.
func (b *Buffer) stream(name, dict string) (*Stream, error) {
	key := name + "\x00" + dict
	if s := b.streams[key]; s != nil {
		return s, nil
	}
	if len(b.streams) >= maxStreams {
		return nil, fmt.Errorf("open stream %q: %d streams are open; restart to forget those of old configs", name, maxStreams)
	}
	a, err := b.account(name)
	if err != nil {
		return nil, err
	}
	s := &Stream{b: b, account: a, dict: key[len(name)+1:], id: uint32(len(b.streams))} // one copy of it
	b.streams[key] = s
	b.dictBytes += int64(len(name)+len(dict)) + 128
	return s, nil
}

// Account returns the name the stream's records are counted under.
func (s *Stream) Account() string { return s.account.name }

// Dict returns the stream's dictionary entry. It must not be changed.
func (s *Stream) Dict() []byte { return []byte(s.dict) }

// Count adds to the ledger's first half: readings polled, and those of them not worth reporting. Those that are worth it are
// counted with the Append that follows, so that whoever looks between the two, such as a backup, sees sums that hold.
func (s *Stream) Count(polled, suppressed int) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	a := s.account
	a.counted.polled += uint64(max(polled, 0))
	a.counted.suppressed += uint64(max(suppressed, 0))
	if polled <= suppressed {
		s.b.tally(a)
	}
}

// tally takes what was counted into the account. mu is held.
func (b *Buffer) tally(a *account) {
	a.polled += a.counted.polled
	a.suppressed += a.counted.suppressed
	a.counted.polled, a.counted.suppressed, b.changed = 0, 0, true
}
