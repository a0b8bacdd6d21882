package opcuasim

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uasc"
)

// kept is how many messages a subscription keeps until they are acknowledged.
const kept = 100

// subscriptions are those of one session, and its Publish requests that wait.
type subscriptions struct {
	mu      sync.Mutex
	all     map[uint32]*subscription
	waiting []asked
	mute    bool // see DropQuietly
}

// asked is a Publish request.
type asked struct {
	channel *secured
	request uint32
	handle  uint32
	ahead   time.Duration // of the server's clock
}

// subscription is one of a session. Its goroutine ends with stop.
type subscription struct {
	id                uint32
	session           *session
	interval          time.Duration
	life, keepAlive   uint32
	most              int
	items             []*item
	sequence          uint32 // of the next message
	sent              map[uint32]*ua.NotificationMessage
	order             []uint32 // of sent
	quiet, unanswered uint32   // publishing intervals
	begun             bool
	ticker            *time.Ticker
	stop              chan struct{}
	once              sync.Once
}

// item is a variable that a subscription watches.
type item struct {
	id       uint32
	dead     bool // its node was removed: it stays silent, also when there is one again
	handle   uint32
	read     *ua.ReadValueID
	key      node
	sampling time.Duration
	due      time.Time
	size     int
	queue    []*ua.DataValue
	last     *ua.DataValue
	events   *ua.EventFilter // nil = of values
	told     []*ua.EventFieldList
	band     float64 // of numbers; 0 = none
}

// SetMute makes subscriptions say nothing of a variable of the first namespace, whatever becomes of it.
func (s *Server) SetMute(name string, mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.muted[node{s.opts.Namespaces[0], "s=" + name}] = mute
}

// SetUnpublished makes the server answer everything but Publish requests.
func (s *Server) SetUnpublished(silent bool) { s.unpublished.Store(silent) }

// SkipMessages keeps the next n messages with values from being sent. One that is forgotten cannot be asked for again, either.
func (s *Server) SkipMessages(n int, forget bool) {
	s.forget.Store(forget)
	s.skip.Store(int64(n))
}

// Drop says what a client learns of a subscription that the server has ended.
type Drop int

// What a client may learn.
const (
	DropTold    Drop = iota // a StatusChangeNotification
	DropRefused             // its Publish requests are answered by BadNoSubscription
	DropQuietly             // nothing at all
)

// DropSubscriptions ends all subscriptions.
func (s *Server) DropSubscriptions(how Drop) {
	s.mu.RLock()
	all := slices.Collect(maps.Values(s.sessions))
	s.mu.RUnlock()
	for _, made := range all {
		made.subs.drop(how)
	}
}

func (m *subscriptions) drop(how Drop) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, sub := range m.all {
		sub.end()
		delete(m.all, id)
		if how == DropTold {
			m.send(sub, &ua.NotificationMessage{SequenceNumber: sub.sequence, NotificationData: []*ua.ExtensionObject{
				ua.NewExtensionObject(&ua.StatusChangeNotification{Status: ua.StatusBadTimeout, DiagnosticInfo: &ua.DiagnosticInfo{}})}})
		}
	}
	if how == DropQuietly {
		m.waiting, m.mute = nil, true
		return
	}
	for _, a := range m.waiting {
		a.answer(&ua.ServiceFault{}, ua.StatusBadNoSubscription)
	}
	m.waiting = nil
}

// endSubscriptions stops all that there are. Nobody is told.
func (s *Server) endSubscriptions() {
	s.mu.RLock()
	all := slices.Collect(maps.Values(s.sessions))
	s.mu.RUnlock()
	endAll(all)
}

// end stops the goroutines of a session's subscriptions.
func (m *subscriptions) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, sub := range m.all {
		sub.end()
	}
}

// orphan stops the subscriptions of a connection that is gone: nobody can ask for what they would keep.
func (s *Server) orphan(channel *uasc.SecureChannel) {
	var orphans []*session
	s.mu.Lock()
	for _, made := range s.sessions {
		if made.channel == channel {
			made.orphan = true
			orphans = append(orphans, made)
		}
	}
	s.mu.Unlock()
	endAll(orphans)
}

func (sub *subscription) end() { sub.once.Do(func() { close(sub.stop) }) }

func (a *asked) answer(res ua.Response, status ua.StatusCode) {
	res.SetHeader(header(time.Now().Add(a.ahead), a.handle, status))
	_ = a.channel.send(context.Background(), a.request, res)
}

// send answers the Publish request that waits longest with a message; false = there is none. m.mu is held.
func (m *subscriptions) send(sub *subscription, message *ua.NotificationMessage) bool {
	if len(m.waiting) == 0 {
		return false
	}
	a := m.waiting[0]
	m.waiting = m.waiting[1:]
	message.PublishTime = time.Now().Add(a.ahead)
	a.answer(&ua.PublishResponse{SubscriptionID: sub.id, AvailableSequenceNumbers: sub.order, NotificationMessage: message}, ua.StatusOK)
	return true
}

func (s *Server) createSubscription(session *session, r *ua.CreateSubscriptionRequest) (ua.Response, ua.StatusCode) {
	if s.opts.NoSubscriptions {
		return nil, ua.StatusBadServiceUnsupported
	}
	sub := &subscription{
		id: s.serial.Add(1), session: session, most: int(r.MaxNotificationsPerPublish), sequence: 1,
		interval:  max(time.Duration(r.RequestedPublishingInterval*float64(time.Millisecond)), s.opts.MinPublishing, 10*time.Millisecond),
		keepAlive: max(r.RequestedMaxKeepAliveCount, 1), sent: map[uint32]*ua.NotificationMessage{}, stop: make(chan struct{}),
	}
	sub.life = max(r.RequestedLifetimeCount, 3*sub.keepAlive)
	m := &session.subs
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := s.opts.MaxSubscriptions; n > 0 && len(m.all) >= n {
		return nil, ua.StatusBadTooManySubscriptions
	}
	if m.all == nil {
		m.all = map[uint32]*subscription{}
	}
	told := sub.id
	for first := range m.all {
		if s.opts.OneID {
			told = first
		}
	}
	sub.ticker = time.NewTicker(sub.interval)
	m.all[sub.id] = sub
	s.wg.Add(1)
	go s.publish(sub)
	return &ua.CreateSubscriptionResponse{SubscriptionID: told, RevisedPublishingInterval: float64(sub.interval) / float64(time.Millisecond),
		RevisedLifetimeCount: sub.life, RevisedMaxKeepAliveCount: sub.keepAlive}, ua.StatusOK
}

// get returns a subscription with the lock held, nil and no lock when there is none.
func (m *subscriptions) get(id uint32) (sub *subscription, unlock func()) {
	m.mu.Lock()
	if sub = m.all[id]; sub == nil {
		m.mu.Unlock()
	}
	return sub, m.mu.Unlock
}

func (s *Server) createItems(session *session, r *ua.CreateMonitoredItemsRequest) (ua.Response, ua.StatusCode) {
	if n := s.opts.MaxItemsPerCall; n > 0 && len(r.ItemsToCreate) > n {
		return nil, ua.StatusBadTooManyOperations
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	sub, unlock := session.subs.get(r.SubscriptionID)
	if sub == nil {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	defer unlock()
	res := &ua.CreateMonitoredItemsResponse{}
	for _, want := range r.ItemsToCreate {
		res.Results = append(res.Results, s.createItem(sub, want))
	}
	return res, ua.StatusOK
}

func (s *Server) createItem(sub *subscription, want *ua.MonitoredItemCreateRequest) *ua.MonitoredItemCreateResult {
	result := &ua.MonitoredItemCreateResult{FilterResult: ua.NewExtensionObject(nil)}
	key, ok := s.find(want.ItemToMonitor.NodeID)
	filter, _ := want.RequestedParameters.Filter.Value.(*ua.EventFilter)
	switch ofEvents := want.ItemToMonitor.AttributeID == ua.AttributeIDEventNotifier && filter != nil && s.notifiers[key]; {
	case ofEvents:
	case !ok || s.nodes[key] == nil:
		result.StatusCode = ua.StatusBadNodeIDUnknown
		return result
	case s.opts.MaxItems > 0 && len(sub.items) >= s.opts.MaxItems:
		result.StatusCode = ua.StatusBadTooManyMonitoredItems
		return result
	case want.ItemToMonitor.AttributeID != ua.AttributeIDValue:
		result.StatusCode = ua.StatusBadAttributeIDInvalid
		return result
	}
	p := want.RequestedParameters
	i := &item{id: s.serial.Add(1), handle: p.ClientHandle, read: want.ItemToMonitor, key: key, size: max(int(p.QueueSize), 1), events: filter,
		sampling: max(time.Duration(p.SamplingInterval*float64(time.Millisecond)), s.opts.MinPublishing, 10*time.Millisecond)}
	if n := s.opts.MaxQueue; n > 0 {
		i.size = min(i.size, n)
	}
	if f, ok := filterOf(p).(*ua.DataChangeFilter); ok && f.DeadbandType == uint32(ua.DeadbandTypeAbsolute) {
		if result.StatusCode = ua.StatusCode(s.opts.RefuseDeadband); result.StatusCode != ua.StatusOK {
			return result
		}
		i.band = f.DeadbandValue
	}
	sub.items = append(sub.items, i)
	result.MonitoredItemID = i.id
	result.RevisedSamplingInterval, result.RevisedQueueSize = float64(i.sampling)/float64(time.Millisecond), uint32(i.size)
	return result
}

// Items returns how many items all subscriptions have.
func (s *Server) Items() (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, made := range s.sessions {
		made.subs.mu.Lock()
		for _, sub := range made.subs.all {
			n += len(sub.items)
		}
		made.subs.mu.Unlock()
	}
	return n
}

// wait lets a Publish request wait for its answer.
func (s *Server) wait(session *session, channel *secured, request uint32, r *ua.PublishRequest) (ua.Response, ua.StatusCode) {
	m := &session.subs
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range r.SubscriptionAcknowledgements {
		if sub := m.all[a.SubscriptionID]; sub != nil {
			delete(sub.sent, a.SequenceNumber)
		}
	}
	switch n := s.opts.MaxPublish; {
	case len(m.all) == 0 && m.mute:
		return nil, ua.StatusOK
	case len(m.all) == 0 && !s.unpublished.Load():
		return nil, ua.StatusBadNoSubscription
	case n > 0 && len(m.waiting) >= n:
		return nil, ua.StatusBadTooManyPublishRequests
	}
	m.waiting = append(m.waiting, asked{channel, request, r.RequestHeader.RequestHandle, s.opts.Ahead})
	return nil, ua.StatusOK
}

func (s *Server) republish(session *session, r *ua.RepublishRequest) (ua.Response, ua.StatusCode) {
	sub, unlock := session.subs.get(r.SubscriptionID)
	if sub == nil {
		return nil, ua.StatusBadSubscriptionIDInvalid
	}
	defer unlock()
	message := sub.sent[r.RetransmitSequenceNumber]
	if message == nil {
		return nil, ua.StatusBadMessageNotAvailable
	}
	s.served(sub, message)
	return &ua.RepublishResponse{NotificationMessage: message}, ua.StatusOK
}

// publish samples and publishes until the subscription ends.
func (s *Server) publish(sub *subscription) {
	defer s.wg.Done()
	defer sub.ticker.Stop()
	for {
		select {
		case <-sub.stop:
			return
		case now := <-sub.ticker.C:
			if !s.cycle(sub, now) {
				return
			}
		}
	}
}

// cycle is one publishing interval; false = the subscription has ended.
func (s *Server) cycle(sub *subscription, now time.Time) bool {
	s.mu.RLock() // before the session's lock, as everywhere
	defer s.mu.RUnlock()
	m := &sub.session.subs
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-sub.stop: // while it waited for its turn: what is sampled now is for nobody
		return false
	default:
	}
	for _, i := range sub.items {
		if !now.Before(i.due) {
			i.due = now.Add(i.sampling - sub.interval/2)
			s.sample(i, s.now())
		}
	}
	if s.silent.Load() || s.unpublished.Load() {
		return true
	}
	if len(m.waiting) == 0 {
		if sub.unanswered++; sub.unanswered > sub.life {
			delete(m.all, sub.id)
			return false
		}
		return true
	}
	sub.unanswered = 0
	if s.publishValues(sub) {
		return true
	}
	if sub.quiet++; sub.quiet >= sub.keepAlive || !sub.begun {
		sub.quiet, sub.begun = 0, true
		m.send(sub, &ua.NotificationMessage{SequenceNumber: sub.sequence})
	}
	return true
}

// publishValues sends what waits in the queues, in as many messages as it takes; false = there is nothing.
func (s *Server) publishValues(sub *subscription) bool {
	m, sent := &sub.session.subs, false
	for len(m.waiting) > 0 {
		message := &ua.NotificationMessage{SequenceNumber: sub.sequence}
		if values := sub.values(); len(values) > 0 {
			message.NotificationData = append(message.NotificationData, s.notification(values))
		}
		if events := sub.events(); len(events) > 0 {
			message.NotificationData = append(message.NotificationData, ua.NewExtensionObject(&ua.EventNotificationList{Events: events}))
		}
		if len(message.NotificationData) == 0 {
			return sent
		}
		sent, sub.quiet, sub.begun = true, 0, true
		skip := s.skip.Load() > 0
		if !skip || !s.forget.Load() {
			sub.keep(message)
		}
		if sub.sequence++; skip {
			s.skip.Add(-1)
			continue
		}
		s.served(sub, message)
		m.send(sub, message)
	}
	return sent
}

// values takes the values of one message out of the queues.
func (sub *subscription) values() (all []*ua.MonitoredItemNotification) {
	for _, i := range sub.items {
		for len(i.queue) > 0 && (sub.most == 0 || len(all) < sub.most) {
			all = append(all, &ua.MonitoredItemNotification{ClientHandle: i.handle, Value: i.queue[0]})
			i.queue = i.queue[1:]
		}
	}
	return all
}

func (sub *subscription) keep(message *ua.NotificationMessage) {
	sub.sent[message.SequenceNumber] = message
	if sub.order = append(sub.order, message.SequenceNumber); len(sub.order) > kept {
		delete(sub.sent, sub.order[0])
		sub.order = sub.order[1:]
	}
}

// served tells of the values of a message just before it is sent.
func (s *Server) served(sub *subscription, message *ua.NotificationMessage) {
	if s.opts.Served == nil {
		return
	}
	keys := map[uint32]node{}
	for _, i := range sub.items {
		keys[i.handle] = i.key
	}
	for _, part := range message.NotificationData {
		data, ok := part.Value.(*ua.DataChangeNotification)
		if !ok {
			continue
		}
		for _, v := range data.MonitoredItems {
			if key := keys[v.ClientHandle]; v.Value.Status>>31 == 0 && key.uri != uaURI && v.Value.Value != nil {
				s.opts.Served(key.identifier, v.Value.Value.Value())
			}
		}
	}
}

func filterOf(p *ua.MonitoringParameters) any {
	if p.Filter == nil {
		return nil
	}
	return p.Filter.Value
}
