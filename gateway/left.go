package gateway

import (
	"fmt"
	"time"

	"millrace/gateway/config"
	"millrace/gateway/poller"
)

// tellLeft says that the store is a backup, or that the last process was killed or the power failed. What it had not committed it alone knew: no gap
// message can count it. Known is until when all that it took is safe.
func (g *Gateway) tellLeft(cfg *config.Config) {
	left := g.buf.Left()
	if !left.Unclean && !left.Restored {
		return
	}
	safe := "not known"
	if at := safeUntil(left, time.Now(), g.clock.unset.Load()); at.After(poller.NotKnown()) {
		safe = at.UTC().Format(time.RFC3339)
	}
	waiting := uint64(0)
	for _, d := range g.buf.Stats().Destinations {
		waiting = max(waiting, d.Backlog)
	}
	if left.Restored {
		g.log.Warn("the store was restored from a backup: nothing is in it that came afterwards; what it holds is sent, also what was delivered since", "safe_until", safe, "records_waiting", waiting)
		return
	}
	missing := "nothing that was on its way through the store is missing, unless its disk took nothing then"
	if every := cfg.Buffer.CommitInterval; every > 0 {
		missing = fmt.Sprintf("up to %v of readings from before it that were not delivered may be missing: devices that push get a gap message of it, polled ones do not; if its disk took nothing then, all from after safe_until", every)
	}
	g.log.Warn("the last stop was not clean: the process was killed, the power failed, the disk took nothing at the stop, or this is a copy of a store in use; "+missing+"; what was on disk is kept and is sent",
		"safe_until", safe, "records_waiting", waiting)
}
