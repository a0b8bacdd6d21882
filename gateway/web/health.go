package web

import (
	"fmt"
	"net/http"
)

// Health is the body of /healthz and /readyz.
type Health struct {
	Status   string   `json:"status"` // "ok" or "failing"
	Problems []string `json:"problems"`
}

// Alive says whether the gateway does its one duty: the buffer accepts readings. A broker or a device
// that is down is not a reason to restart a gateway whose work is to outlast them.
func (s *Snapshot) Alive() Health {
	h := Health{Status: "ok", Problems: []string{}}
	if s.Buffer.Health != HealthOK {
		h.fail("buffer %q: %s; readings are not kept until this is mended", s.Buffer.Path, s.Buffer.Health)
	}
	return h
}

// Ready says whether readings flow from end to end, and lists everything that stands in the way.
func (s *Snapshot) Ready() Health {
	h := s.Alive()
	for i := range s.Destinations {
		if d := &s.Destinations[i]; d.State != StateConnected {
			h.fail("destination %q: %s", d.Name, withCause(d.State, d.LastError))
		}
	}
	for i := range s.Devices {
		if s.Devices[i].Live() {
			return h
		}
	}
	if len(s.Devices) > 0 {
		d := &s.Devices[0]
		h.fail("no device answers; the first is %q: %s", d.Name, withCause("not connected", d.Reason))
	}
	return h
}

func (h *Health) fail(format string, args ...any) {
	h.Status = "failing"
	h.Problems = append(h.Problems, fmt.Sprintf(format, args...))
}

func (h *Health) code() int {
	if len(h.Problems) > 0 {
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}

func withCause(state, cause string) string {
	if cause == "" {
		return state
	}
	return state + ": " + cause
}
