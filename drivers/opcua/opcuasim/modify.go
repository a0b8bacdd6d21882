package opcuasim

import (
	"time"

	"github.com/gopcua/opcua/ua"
)

// modifySubscription changes how often a subscription publishes.
func (s *Server) modifySubscription(session *session, r *ua.ModifySubscriptionRequest) (ua.Response, ua.StatusCode) {
	sub, unlock := session.subs.get(r.SubscriptionID)
	if sub == nil {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	defer unlock()
	sub.interval = max(time.Duration(r.RequestedPublishingInterval*float64(time.Millisecond)), s.opts.MinPublishing, 10*time.Millisecond)
	sub.keepAlive = max(r.RequestedMaxKeepAliveCount, 1)
	sub.life = max(r.RequestedLifetimeCount, 3*sub.keepAlive)
	sub.ticker.Reset(sub.interval)
	return &ua.ModifySubscriptionResponse{RevisedPublishingInterval: float64(sub.interval) / float64(time.Millisecond), RevisedLifetimeCount: sub.life, RevisedMaxKeepAliveCount: sub.keepAlive}, ua.StatusOK
}
