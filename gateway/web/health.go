package web

import "net/http"

// Health is the body of /healthz and /readyz.
type Health struct {
	Status   string   `json:"status"`   // "ok", "attention" or "failing"
	Problems []string `json:"problems"` // the states that are not ok, loudest first
}

// Alive says whether the gateway does its one duty: the buffer accepts readings, and nothing of it hangs. A broker or a device
// that is down is not a reason to restart a gateway whose work is to outlast them; nor is data that was lost. A full store that
// refuses readings is said, but no restart mends it.
func (s *Snapshot) Alive() Health {
	h := s.health(func(st *State) bool { return st.State == StateFailing || st.State == StateHung })
	for i := range s.States {
		if st := &s.States[i]; st.Kind == "store" && st.State == StateLosing {
			h.Problems = append(h.Problems, st.String())
			if h.Status == "ok" {
				h.Status = "attention"
			}
		}
	}
	return h
}

// Ready says whether readings flow from end to end, and lists every state that is not ok. A device that is down fails it
// only when all are.
func (s *Snapshot) Ready() Health {
	down := 0
	for i := range s.Devices {
		if !s.Devices[i].Up {
			down++
		}
	}
	h := s.health(func(st *State) bool {
		return st.Level() == LevelBad || st.State == StateDown && (st.Kind != "device" || down == len(s.Devices))
	})
	if h.Status == "ok" && len(s.States) > 0 {
		h.Status = "attention"
	}
	h.Problems = []string{}
	for i := range s.States {
		h.Problems = append(h.Problems, s.States[i].String())
	}
	return h
}

func (s *Snapshot) health(fails func(*State) bool) Health {
	h := Health{Status: "ok", Problems: []string{}}
	for i := range s.States {
		if st := &s.States[i]; fails(st) {
			h.Status, h.Problems = "failing", append(h.Problems, st.String())
		}
	}
	return h
}

func (h *Health) code() int {
	if h.Status == "failing" {
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}
