package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"millrace/gateway/web"
)

// judge remembers since when each state stands, and tells the log of changes. What the states are web.Judge decides.
type judge struct {
	log *slog.Logger

	mu     sync.Mutex
	states map[string]*standing // by kind, name and state
}

type standing struct {
	since  time.Time
	now    bool // at the last look
	said   bool // the log's last word is that it stands
	spoken time.Time
	text   string
	lasted time.Duration
	ended  string // what is said when it no longer stands
}

const (
	firstLook = 3 * time.Second // after the start: devices and brokers are still being dialled
	lookEvery = 2 * time.Second
	quiet     = time.Minute // the log has at most one line of a state in this time
	maxLines  = 20          // of one look
)

func stateKey(s *web.State) string { return s.Kind + "\x00" + s.Name + "\x00" + s.State }

// stamp gives the states that do not know it since when they stand.
func (j *judge) stamp(s *web.Snapshot) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, st := range j.states {
		st.now = false
	}
	for i := range s.States {
		st := &s.States[i]
		known := j.states[stateKey(st)]
		if known == nil {
			known = &standing{}
			j.states[stateKey(st)] = known
		}
		if !st.Since.IsZero() {
			known.since = st.Since
		} else if known.since.IsZero() {
			known.since = s.Now
		}
		st.Since = known.since
		known.now, known.text, known.ended = true, st.String(), "no more: "+st.String()
		switch st.State {
		case web.StateDown, web.StateHung, web.StateFailing, web.StateLate, web.StatePartlyBad:
			known.ended = fmt.Sprintf("%s %q is no longer %s", st.Kind, st.Name, st.State)
		}
	}
	for key, st := range j.states {
		if !st.now {
			if !st.since.IsZero() {
				st.lasted = s.Now.Sub(st.since)
			}
			st.since = time.Time{}
			if !st.said && s.Now.Sub(st.spoken) > quiet {
				delete(j.states, key)
			}
		}
	}
}

// tell logs what has changed, loudest first, and at most a line a minute of each state.
func (j *judge) tell(s *web.Snapshot) {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines, left := 0, 0
	due := func(st *standing) bool {
		if st.now == st.said || !st.spoken.IsZero() && s.Now.Sub(st.spoken) < quiet {
			return false
		}
		st.said, st.spoken = st.now, s.Now
		if lines++; lines > maxLines {
			left++
		}
		return lines <= maxLines
	}
	for i := range s.States {
		if st := j.states[stateKey(&s.States[i])]; st != nil && due(st) {
			level := slog.LevelWarn
			if s.States[i].Level() == web.LevelBad {
				level = slog.LevelError
			}
			j.log.Log(context.Background(), level, st.text)
		}
	}
	for _, st := range j.states {
		if !st.now && due(st) {
			j.log.Info(st.ended, "lasted", st.lasted.Round(time.Second))
		}
	}
	if left > 0 {
		j.log.Warn("more states have changed; the page and /readyz show all", "left_out", left)
	}
}

// watchStates looks every two seconds, and tells the log.
func (g *Gateway) watchStates(ctx context.Context) error {
	timer := time.NewTimer(firstLook)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		began := time.Now()
		g.judge.tell(g.state())
		if err := g.losses.save(); err != nil {
			g.log.Debug("not kept yet; trying again", "cause", err) // the store's own state says why
		}
		_ = g.keepLearned(false)                          // said in the log
		timer.Reset(max(lookEvery, 20*time.Since(began))) // a large plant is looked at less often
	}
}

// Ack notes that a person has seen what was lost.
func (g *Gateway) Ack(who string) ([]web.Loss, error) {
	return g.losses.acknowledge(g.buf.Ledger(), who)
}
