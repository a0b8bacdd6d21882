package brokersim

import (
	"strings"
	"sync"
)

// routes say which clients get a message of a topic.
type routes struct {
	mu   sync.RWMutex
	subs map[*client]map[string]byte // filter to QoS
}

type target struct {
	c   *client
	qos byte
}

func (r *routes) add(c *client, filter string, qos byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.subs == nil {
		r.subs = map[*client]map[string]byte{}
	}
	if r.subs[c] == nil {
		r.subs[c] = map[string]byte{}
	}
	r.subs[c][filter] = qos
}

func (r *routes) remove(c *client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.subs, c)
}

func (r *routes) has(c *client) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.subs[c]) > 0
}

// to returns who gets messages of the topic: each client once, with its highest QoS.
func (r *routes) to(topic string) (targets []target) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for c, filters := range r.subs {
		best := -1
		for filter, qos := range filters {
			if matches(filter, topic) {
				best = max(best, int(qos))
			}
		}
		if best >= 0 {
			targets = append(targets, target{c, byte(best)})
		}
	}
	return targets
}

// matches reports whether a topic matches a filter with + and # (MQTT 3.1.1 section 4.7).
func matches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && !strings.HasPrefix(filter, "$") {
		return false
	}
	for {
		f, filterRest, moreFilter := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, topicRest, moreTopic := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !moreTopic {
			return !moreFilter || filterRest == "#"
		}
		if !moreFilter {
			return false
		}
		filter, topic = filterRest, topicRest
	}
}
