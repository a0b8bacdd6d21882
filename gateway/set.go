package gateway

import (
	"slices"
	"time"
)

// stopPatience is how long a poller that is told to stop may finish its poll. A device that takes longer has its
// request broken off, so that a reload ends.
const stopPatience = 5 * time.Second

// key names a line: device names are unique, and a line whose first device is another one is another line.
func (l *line) key() string { return l.devices[0].name }

// stop lets the poll in flight end.
func (l *line) stop() {
	l.poller.Stop()
	time.AfterFunc(stopPatience, l.cancel)
}

// without returns what of s is not in next.
func (s *set) without(next *set) *set {
	gone := &set{}
	kept := map[any]bool{next.site: true}
	for _, u := range next.uplinks {
		kept[u] = true
	}
	for _, l := range next.lines {
		kept[l] = true
	}
	if s.site != nil && !kept[s.site] {
		gone.site = s.site
	}
	for _, u := range s.uplinks {
		if !kept[u] {
			gone.uplinks = append(gone.uplinks, u)
		}
	}
	for _, l := range s.lines {
		if !kept[l] {
			gone.lines = append(gone.lines, l)
		}
	}
	return gone
}

// stop tells everything in the set to end; it does not wait.
func (s *set) stop() {
	if s.site != nil {
		s.site.cancel()
	}
	for _, u := range s.uplinks {
		u.cancel()
	}
	for _, l := range s.lines {
		l.stop()
	}
}

// sessions returns the tasks of all uplinks: two of them may have exchanged their client ids.
func (s *set) sessions() (tasks []*task) {
	for _, u := range s.uplinks {
		tasks = append(tasks, u.task)
	}
	return tasks
}

// holders is the lines that were told to end, by what only one line may hold at a time: a device, a url. It outlives a
// reload, because the next one may bring back a device before its old line has ended.
type holders map[string][]*task

// add takes in lines that were told to end and forgets those that have.
func (h holders) add(gone []*line) {
	for key, tasks := range h {
		tasks = slices.DeleteFunc(tasks, (*task).over)
		if h[key] = tasks; len(tasks) == 0 {
			delete(h, key)
		}
	}
	for _, l := range gone {
		for _, key := range l.holds() {
			h[key] = append(h[key], l.task)
		}
	}
}

// before returns the tasks that must end before l begins.
func (h holders) before(l *line) (tasks []*task) {
	for _, key := range l.holds() {
		tasks = append(tasks, h[key]...)
	}
	return tasks
}

func (l *line) holds() []string {
	keys := []string{"url " + l.url}
	for _, d := range l.devices {
		keys = append(keys, "device "+d.name)
	}
	return keys
}
