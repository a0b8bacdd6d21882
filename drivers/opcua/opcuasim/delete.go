package opcuasim

import (
	"slices"

	"github.com/gopcua/opcua/ua"
)

// deleteSubscriptions ends some of a session.
func (s *Server) deleteSubscriptions(session *session, r *ua.DeleteSubscriptionsRequest) (ua.Response, ua.StatusCode) {
	m := &session.subs
	m.mu.Lock()
	defer m.mu.Unlock()
	res := &ua.DeleteSubscriptionsResponse{}
	for _, id := range r.SubscriptionIDs {
		status := ua.StatusBadSubscriptionIDInvalid
		if sub := m.all[id]; sub != nil {
			sub.end()
			delete(m.all, id)
			status = ua.StatusOK
		}
		res.Results = append(res.Results, status)
	}
	return res, ua.StatusOK
}

// deleteItems takes items out of a subscription.
func (s *Server) deleteItems(session *session, r *ua.DeleteMonitoredItemsRequest) (ua.Response, ua.StatusCode) {
	sub, unlock := session.subs.get(r.SubscriptionID)
	if sub == nil {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	defer unlock()
	res := &ua.DeleteMonitoredItemsResponse{}
	for _, id := range r.MonitoredItemIDs {
		at, status := slices.IndexFunc(sub.items, func(i *item) bool { return i.id == id }), ua.StatusOK
		if at < 0 {
			status = ua.StatusBadMonitoredItemIDInvalid
		} else {
			sub.items = slices.Delete(sub.items, at, at+1)
		}
		res.Results = append(res.Results, status)
	}
	return res, ua.StatusOK
}
