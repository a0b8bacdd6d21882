package opcua

import (
	"fmt"

	"millrace/drivers"
)

// A server says that it had to discard events (EventQueueOverflowEventType; OPC 10000-4, 5.12.1.5), and some do not. As many events of an item in one go as its queue holds may be all that is left of more.

// leastQueue is of the queues that are judged: with one of a single event each one fills it.
const leastQueue = 2

// fewer is what to do about bursts: the length of the queue is not to be set.
const fewer = "see event_type and min_severity, or tags of single machines, for fewer at once"

// burst counts the events of each tag since the server last had nothing more to send.
type burst struct {
	queues map[int]uint32 // of the items, by tag; nil = none is known
	n      map[int]uint32
	told   map[int]bool // some are lost, and whether the server said so itself
}

// holds takes the size that the server gave the queue of a tag's item.
func (b *burst) holds(tag int, queue uint32) {
	if b.queues == nil {
		b.queues, b.n, b.told = map[int]uint32{}, map[int]uint32{}, map[int]bool{}
	}
	b.queues[tag] = queue
}

// came takes an event of a tag, and says that others may be lost when it is the one that fills the queue.
func (b *burst) came(tag int, p *drivers.Push) {
	queue := b.queues[tag]
	if queue < leastQueue {
		return
	}
	if b.n[tag]++; b.n[tag] < queue {
		return
	}
	if _, told := b.told[tag]; !told {
		b.lost(tag, false, p, fmt.Sprintf("the server's queue was full: it sent %d events at once, as many as it keeps; more may be lost: %s", queue, fewer))
	}
}

// overflow takes that the server says that it has discarded events of a tag.
func (b *burst) overflow(tag int, p *drivers.Push) {
	if itself, told := b.told[tag]; told && !itself { // it is said already
		return
	}
	b.lost(tag, true, p, "the server had no room for all events, and discarded some: "+fewer)
}

func (b *burst) lost(tag int, itself bool, p *drivers.Push, note string) {
	if b.told != nil {
		b.told[tag] = itself
	}
	p.Lost++
	p.Tags, p.Note = append(p.Tags, uint32(tag)), note
}

// over ends it: the server has nothing more to send.
func (b *burst) over() {
	clear(b.n)
	clear(b.told)
}
