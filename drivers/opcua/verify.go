package opcua

import (
	"fmt"
	"hash/maphash"
	"time"

	"github.com/gopcua/opcua/id"

	"millrace/drivers/opcua/wire"
)

// maxVerified is how many values one request reads to compare them with what was pushed.
const maxVerified = 500

// verified compares values that have not been pushed for a while with what a read says: a server may report all tags of a subscription but
// one. A value that differs twice, an interval apart, and was not pushed in between is one that the server does not report.
type verified struct {
	every   time.Duration
	due     time.Time
	at      int // the tag to go on with
	seed    maphash.Seed
	pushed  []image       // of each tag, as it was pushed last
	suspect map[int]image // of tags that differed last time
}

// image is what is kept of a value.
type image struct {
	hash uint64
	at   time.Time // when it came; zero when none has
	held time.Time // when a message or a read last said so
}

func newVerified(every time.Duration, tags int) *verified {
	if every == 0 {
		return nil
	}
	return &verified{every: every, due: time.Now().Add(every), seed: maphash.MakeSeed(), pushed: make([]image, tags), suspect: map[int]image{}}
}

// note takes a value that was pushed, and when it was so.
func (v *verified) note(tag int, value *wire.DataValue, now, held time.Time) {
	if v != nil {
		v.pushed[tag] = image{v.hash(value), now, held}
	}
}

// forget leaves a tag alone until it is pushed again.
func (v *verified) forget(tag int) {
	if v != nil {
		v.pushed[tag] = image{}
		delete(v.suspect, tag)
	}
}

// hash leaves out the time: some servers have another one for each read.
func (v *verified) hash(value *wire.DataValue) uint64 {
	return maphash.Bytes(v.seed, value.Variant) ^ uint64(value.Status>>16)
}

// idle returns the next tags that have been pushed, but not for an interval.
func (v *verified) idle(now time.Time) (tags []int) {
	for range v.pushed {
		if p := &v.pushed[v.at]; !p.at.IsZero() && now.Sub(p.at) >= v.every {
			tags = append(tags, v.at)
		}
		v.at = (v.at + 1) % len(v.pushed)
		if len(tags) == maxVerified {
			break
		}
	}
	return tags
}

// verify reads some idle tags, those first that are suspect.
func (f *feed) verify(m *member, now time.Time) error {
	v := m.verified
	v.due = now.Add(v.every)
	tags := make([]int, 0, len(v.suspect))
	for tag, found := range v.suspect {
		if v.pushed[tag].at.Before(found.at) {
			tags = append(tags, tag)
		}
	}
	if len(tags) == 0 {
		tags = v.idle(now)
	}
	before := v.suspect
	v.suspect = map[int]image{}
	r, n, err := f.some(m, tags)
	if err != nil || n == 0 {
		return err
	}
	if n < len(tags) { // the next time it goes on there
		v.at = tags[n]
	}
	tags = tags[:n]
	for _, tag := range tags {
		value := r.DataValue(0)
		if r.Err != nil {
			continue
		}
		if v.hash(&value) == v.pushed[tag].hash {
			v.pushed[tag].held = now
			f.holds(m, tag, &value, now)
			continue
		}
		if _, again := before[tag]; again {
			f.since = v.pushed[tag].held
			return m.mute(tag)
		}
		v.suspect[tag] = image{v.hash(&value), now, now}
	}
	return nil
}

// some reads tags, as many from the first on as the server takes in one request, and returns how many: 0 when it refuses them, or when their answer is malformed. What is pushed is none the worse.
func (f *feed) some(m *member, tags []int) (r reader, n int, err error) {
	n = m.group.fit(tags, f.reads, min(maxRequest, f.link.channel.Request()/2))
	if n == 0 {
		return r, 0, nil
	}
	nodes := make([][]byte, n)
	for i, tag := range tags[:n] {
		nodes[i] = m.group.ask.ids[tag]
	}
	r, err = f.call(f.ctx, id.ReadRequest_Encoding_DefaultBinary, id.ReadResponse_Encoding_DefaultBinary, encodeRead(nodes))
	switch {
	case err != nil && tooMuch(err):
		f.reads = max(n/2, 1)
		return r, 0, nil
	case err != nil:
		return r, 0, unlessRefused(err)
	case r.Count(1) != n || r.Err != nil:
		return r, 0, nil
	}
	return r, n, nil
}

// mute gives up on a subscription of which one tag is not reported. When that happens again the group is polled.
func (m *member) mute(tag int) error {
	g, name := m.group, m.group.tags[tag].addr
	if !g.muted {
		g.muted = true
		return fmt.Errorf("the server does not report changes of %q any more", name)
	}
	g.spoilt = true
	return fmt.Errorf("the server does not report changes of %q again; the tags are polled from now on", name)
}
