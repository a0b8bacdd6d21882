package web

import (
	"encoding/json"
	"net/http"
	"time"
)

// trace answers with one exchange a line as they happen, until either side has enough.
func (c *local) trace(w http.ResponseWriter, r *http.Request) {
	if !c.views.watch(w) {
		return
	}
	defer func() { <-c.views.watching }()
	exchanges, err := c.g.Trace(r.Context(), r.FormValue("device"))
	if err != nil {
		answer(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	rc, enc := http.NewResponseController(w), json.NewEncoder(w)
	alive := time.NewTicker(maxSilence)
	defer alive.Stop()
	for {
		_ = rc.SetWriteDeadline(time.Now().Add(stall))
		if len(exchanges) == 0 && rc.Flush() != nil {
			return
		}
		select {
		case e, open := <-exchanges:
			if !open || enc.Encode(e) != nil {
				return
			}
		case <-alive.C:
			if _, err := w.Write([]byte("\n")); err != nil {
				return
			}
		}
	}
}
