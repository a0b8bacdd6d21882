package opcuasim

import (
	"crypto/rand"
	"fmt"
	"maps"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

func (s *Server) addStandardNodes() {
	numeric := func(n uint32) string { return fmt.Sprintf("i=%d", n) }
	s.AddNode(uaURI, numeric(id.Server_NamespaceArray), func() any { return s.namespaces })
	s.AddNode(uaURI, numeric(id.Server_ServerStatus_CurrentTime), func() any { return s.now().UTC() })
	s.AddNode(uaURI, numeric(id.Server_ServerStatus_State), func() any { return int32(ua.ServerStateRunning) })
	if n := s.opts.MaxNodesPerRead; n > 0 && !s.opts.HideLimit {
		s.AddNode(uaURI, numeric(id.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead), func() any { return uint32(n) })
	}
	if n := s.opts.MaxPathsPerCall; n > 0 && !s.opts.HideLimit {
		s.AddNode(uaURI, numeric(id.Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIDs), func() any { return uint32(n) })
	}
	if n := s.opts.MaxItemsPerCall; n > 0 && !s.opts.HideLimit {
		s.AddNode(uaURI, numeric(id.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall), func() any { return uint32(n) })
	}
}

// answer serves one request; nil = its answer comes later.
func (s *Server) answer(channel *secured, request uint32, req ua.Request) ua.Response {
	var res ua.Response
	status := s.secret(channel, req)
	switch r := req.(type) {
	case *ua.GetEndpointsRequest:
		offers := s.endpoints(r.EndpointURL)
		if s.opts.Offers != nil {
			offers = s.opts.Offers(offers)
		}
		res = &ua.GetEndpointsResponse{Endpoints: offers}
	case *ua.FindServersRequest:
		e := s.endpoint(r.EndpointURL, ua.SecurityPolicyURINone, ua.MessageSecurityModeNone)
		e.Server.DiscoveryURLs = []string{r.EndpointURL}
		res = &ua.FindServersResponse{Servers: []*ua.ApplicationDescription{e.Server}}
	case *ua.CreateSessionRequest:
		time.Sleep(time.Duration(s.slowLogin.Load()))
		res, status = s.createSession(channel, r)
	case *ua.ActivateSessionRequest:
		s.logins.Add(1)
		time.Sleep(time.Duration(s.slowLogin.Load()))
		if status = s.activate(channel, r); status == ua.StatusOK {
			res = &ua.ActivateSessionResponse{ServerNonce: nonce()}
		}
	case *ua.CloseSessionRequest:
		if status = s.session(req, false); status == ua.StatusOK {
			s.mu.Lock()
			token := r.RequestHeader.AuthenticationToken.String()
			made := s.sessions[token]
			delete(s.sessions, token)
			s.mu.Unlock()
			if made != nil { // not dropped meanwhile
				made.subs.end()
			}
			res = &ua.CloseSessionResponse{}
		}
	default:
		var made *session
		if made, status = s.active(req); status != ua.StatusOK {
			break
		}
		var known bool
		if res, status, known = s.attended(made, req); !known {
			res, status = s.subscribed(made, channel, request, req)
		}
		if res == nil && status == ua.StatusOK {
			return nil
		}
	}
	if status != ua.StatusOK {
		res = &ua.ServiceFault{}
	}
	res.SetHeader(header(s.now(), req.Header().RequestHandle, status))
	return res
}

// secret returns the status with which a request is refused for its channel.
func (s *Server) secret(channel *secured, req ua.Request) ua.StatusCode {
	switch req.(type) {
	case *ua.GetEndpointsRequest, *ua.FindServersRequest:
		if channel.config.SecurityMode == ua.MessageSecurityModeNone {
			return ua.StatusCode(s.opts.Secretive)
		}
	}
	return ua.StatusOK
}

// attended serves a request of an active session that is answered at once.
func (s *Server) attended(made *session, req ua.Request) (res ua.Response, status ua.StatusCode, known bool) {
	switch r := req.(type) {
	case *ua.ReadRequest:
		s.unhandle(made, r.NodesToRead)
		res, status = s.read(r)
	case *ua.RegisterNodesRequest:
		res, status = s.register(made, r)
	case *ua.TranslateBrowsePathsToNodeIDsRequest:
		res, status = s.translate(r)
	case *ua.WriteRequest:
		res, status = s.write(r)
	case *ua.CallRequest:
		res, status = s.call(made, r)
	case *ua.HistoryReadRequest:
		res, status = s.historyRead(r)
	case *ua.BrowseRequest:
		switch {
		case s.opts.Refers != nil && len(r.NodesToBrowse) == 1:
			res = s.refers(r.NodesToBrowse[0])
		case !s.opts.Browsable:
			status = ua.StatusBadServiceUnsupported
		default:
			res, status = s.browse(r)
		}
	default:
		return nil, ua.StatusOK, false
	}
	return res, status, true
}

func header(now time.Time, handle uint32, status ua.StatusCode) *ua.ResponseHeader {
	return &ua.ResponseHeader{
		Timestamp:          now,
		RequestHandle:      handle,
		ServiceResult:      status,
		ServiceDiagnostics: &ua.DiagnosticInfo{},
		AdditionalHeader:   ua.NewExtensionObject(nil),
	}
}

// subscribed serves a request that has to do with subscriptions.
func (s *Server) subscribed(made *session, channel *secured, request uint32, req ua.Request) (ua.Response, ua.StatusCode) {
	switch r := req.(type) {
	case *ua.CreateSubscriptionRequest:
		return s.createSubscription(made, r)
	case *ua.ModifySubscriptionRequest:
		return s.modifySubscription(made, r)
	case *ua.CreateMonitoredItemsRequest:
		return s.createItems(made, r)
	case *ua.DeleteSubscriptionsRequest:
		return s.deleteSubscriptions(made, r)
	case *ua.DeleteMonitoredItemsRequest:
		return s.deleteItems(made, r)
	case *ua.PublishRequest:
		return s.wait(made, channel, request, r)
	case *ua.RepublishRequest:
		return s.republish(made, r)
	}
	return nil, ua.StatusBadServiceUnsupported
}

func (s *Server) endpoints(url string) (all []*ua.EndpointDescription) {
	if len(s.opts.Policies) == 0 || s.opts.NoneToo {
		all = append(all, s.endpoint(url, ua.SecurityPolicyURINone, ua.MessageSecurityModeNone))
	}
	for _, uri := range s.opts.Policies {
		for _, mode := range []ua.MessageSecurityMode{ua.MessageSecurityModeSign, ua.MessageSecurityModeSignAndEncrypt} {
			all = append(all, s.endpoint(url, uri, mode))
		}
	}
	return all
}

func (s *Server) endpoint(url, policy string, mode ua.MessageSecurityMode) *ua.EndpointDescription {
	e := &ua.EndpointDescription{
		EndpointURL: url,
		Server: &ua.ApplicationDescription{
			ApplicationURI:  ServerURI,
			ApplicationName: ua.NewLocalizedText("millrace simulated machine"),
			ApplicationType: ua.ApplicationTypeServer,
		},
		SecurityMode:        mode,
		SecurityPolicyURI:   policy,
		TransportProfileURI: "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary",
		UserIdentityTokens:  []*ua.UserTokenPolicy{{PolicyID: "anyone", TokenType: ua.UserTokenTypeAnonymous}},
	}
	if s.opts.Identity != nil {
		e.ServerCertificate = s.opts.Identity.Certificate
	}
	if s.opts.Username != "" {
		e.UserIdentityTokens = []*ua.UserTokenPolicy{{PolicyID: "user", TokenType: ua.UserTokenTypeUserName, SecurityPolicyURI: s.userPolicy(policy)}}
	}
	if s.opts.UserCertificate != nil {
		e.UserIdentityTokens = append(e.UserIdentityTokens, &ua.UserTokenPolicy{PolicyID: "certificate", TokenType: ua.UserTokenTypeCertificate, SecurityPolicyURI: s.userPolicy(policy)})
	}
	return e
}

func (s *Server) createSession(channel *secured, r *ua.CreateSessionRequest) (ua.Response, ua.StatusCode) {
	mode := channel.config.SecurityMode
	if mode == ua.MessageSecurityModeNone && len(s.opts.Policies) > 0 && !s.opts.NoneToo {
		return nil, ua.StatusBadSecurityPolicyRejected
	}
	signature, algorithm, err := channel.NewSessionSignature(r.ClientCertificate, r.ClientNonce)
	if err != nil {
		return nil, ua.StatusBadSecurityChecksFailed
	}
	if s.opts.Forge && len(signature) > 0 {
		signature[0] ^= 1
	}
	if s.opts.OneClient {
		s.endSubscriptions()
	}
	token := ua.NewByteStringNodeID(1, nonce())
	made := &session{channel: channel.SecureChannel, nonce: nonce(), certificate: r.ClientCertificate}
	if !s.admit(token.String(), made) {
		return nil, ua.StatusBadTooManySessions
	}
	res := &ua.CreateSessionResponse{
		SessionID:             ua.NewNumericNodeID(1, s.serial.Add(1)),
		AuthenticationToken:   token,
		RevisedSessionTimeout: r.RequestedSessionTimeout,
		ServerNonce:           made.nonce,
		ServerEndpoints:       s.endpoints(r.EndpointURL),
		ServerSignature:       &ua.SignatureData{Algorithm: algorithm, Signature: signature},
	}
	if s.wrongNonce.Load() {
		res.ServerNonce = nonce()
	}
	if s.opts.Identity != nil {
		res.ServerCertificate = s.opts.Identity.Certificate
	}
	return res, ua.StatusOK
}

// maxSessions bounds the sessions of a server; those whose connections are gone make room.
const maxSessions = 1000

func (s *Server) admit(token string, made *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sessions) >= maxSessions {
		maps.DeleteFunc(s.sessions, func(_ string, old *session) bool { return old.orphan })
	}
	if len(s.sessions) >= maxSessions {
		return false
	}
	s.sessions[token] = made
	return true
}

func (s *Server) activate(channel *secured, r *ua.ActivateSessionRequest) ua.StatusCode {
	if code := s.session(r, false); code != ua.StatusOK {
		return code
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	made := s.sessions[r.RequestHeader.AuthenticationToken.String()]
	if made == nil { // dropped meanwhile
		return ua.StatusBadSessionIDInvalid
	}
	if channel.VerifySessionSignature(made.certificate, made.nonce, r.ClientSignature.Signature) != nil {
		return ua.StatusBadApplicationSignatureInvalid
	}
	if t, ok := r.UserIdentityToken.Value.(*ua.X509IdentityToken); ok {
		if status := s.acceptsCertificate(t, r.UserTokenSignature, made.nonce, channel.config.SecurityPolicyURI); status != ua.StatusOK {
			return status
		}
	} else if s.opts.Username != "" && !s.accepts(r.UserIdentityToken, made.nonce, channel.config.SecurityPolicyURI) {
		return ua.StatusBadUserAccessDenied
	}
	made.active, made.locales = true, r.LocaleIDs
	return ua.StatusOK
}

// active returns the activated session that a request belongs to.
func (s *Server) active(req ua.Request) (*session, ua.StatusCode) {
	if status := s.session(req, true); status != ua.StatusOK {
		return nil, status
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	made := s.sessions[req.Header().AuthenticationToken.String()]
	if made == nil { // dropped meanwhile
		return nil, ua.StatusBadSessionIDInvalid
	}
	return made, ua.StatusOK
}

// session checks that the request belongs to a session, and to an activated one if asked.
func (s *Server) session(req ua.Request, activated bool) ua.StatusCode {
	s.mu.RLock()
	defer s.mu.RUnlock()
	made, ok := s.sessions[req.Header().AuthenticationToken.String()]
	switch {
	case !ok:
		return ua.StatusBadSessionIDInvalid
	case activated && !made.active:
		return ua.StatusBadSessionNotActivated
	}
	return ua.StatusOK
}

func (s *Server) read(r *ua.ReadRequest) (ua.Response, ua.StatusCode) {
	s.reads.Add(1)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := s.opts.MaxNodesPerRead; n > 0 && len(r.NodesToRead) > n {
		return nil, ua.StatusBadTooManyOperations
	}
	if s.opts.OnRead != nil {
		ids := make([]string, len(r.NodesToRead))
		for i, n := range r.NodesToRead {
			key, _ := s.find(n.NodeID)
			ids[i] = key.identifier
		}
		if code := s.opts.OnRead(ids); code != 0 {
			return nil, ua.StatusCode(code)
		}
	}
	now := s.now()
	res := &ua.ReadResponse{Results: make([]*ua.DataValue, len(r.NodesToRead))}
	for i, n := range r.NodesToRead {
		res.Results[i] = withTimes(s.readNode(n, now), r.TimestampsToReturn)
	}
	return res, ua.StatusOK
}

func (s *Server) readNode(r *ua.ReadValueID, now time.Time) *ua.DataValue {
	dv, v := s.valueOf(r, now)
	if key, _ := s.find(r.NodeID); s.opts.Served != nil && dv.Status>>31 == 0 && key.uri != uaURI {
		s.opts.Served(key.identifier, v)
	}
	return dv
}

// valueOf returns the value of a node, also as its function has it.
func (s *Server) valueOf(r *ua.ReadValueID, now time.Time) (*ua.DataValue, any) {
	key, ok := s.find(r.NodeID)
	value := s.nodes[key]
	if s.opts.Attribute != nil && r.AttributeID != ua.AttributeIDValue {
		if v := s.opts.Attribute(r.NodeID.String(), r.AttributeID); v != nil {
			return dataValue(v, now), v
		}
	}
	switch code := s.bad[key]; {
	case ok && s.attribute(key, r.AttributeID, now) != nil:
		return s.attribute(key, r.AttributeID, now), nil
	case !ok || value == nil:
		return badValue(ua.StatusBadNodeIDUnknown, now), nil
	case r.AttributeID != ua.AttributeIDValue:
		return badValue(ua.StatusBadAttributeIDInvalid, now), nil
	case code != 0:
		return badValue(code, now), nil
	}
	v := value()
	dv, ready := v.(*ua.DataValue)
	if !ready {
		if dv = dataValue(v, now); dv == nil {
			return badValue(ua.StatusBadInternalError, now), nil
		}
	}
	return dv, v
}

// withTimes leaves only the timestamps that the client asked for.
func withTimes(dv *ua.DataValue, want ua.TimestampsToReturn) *ua.DataValue {
	drop := byte(0)
	switch want {
	case ua.TimestampsToReturnSource:
		drop = ua.DataValueServerTimestamp
	case ua.TimestampsToReturnServer:
		drop = ua.DataValueSourceTimestamp
	case ua.TimestampsToReturnNeither:
		drop = ua.DataValueServerTimestamp | ua.DataValueSourceTimestamp
	}
	if drop == 0 {
		return dv
	}
	short := *dv
	short.EncodingMask &^= drop
	return &short
}

// dataValue wraps a value; nil when a variant cannot hold it.
func dataValue(v any, now time.Time) *ua.DataValue {
	if n, ok := v.(int); ok {
		v = int64(n)
	}
	dv := &ua.DataValue{
		EncodingMask:    ua.DataValueSourceTimestamp | ua.DataValueServerTimestamp,
		SourceTimestamp: now,
		ServerTimestamp: now,
	}
	if v == nil {
		return dv
	}
	variant, err := ua.NewVariant(v)
	if err != nil {
		return nil
	}
	dv.Value, dv.EncodingMask = variant, dv.EncodingMask|ua.DataValueValue
	return dv
}

func badValue(code ua.StatusCode, now time.Time) *ua.DataValue {
	return &ua.DataValue{
		EncodingMask:    ua.DataValueStatusCode | ua.DataValueServerTimestamp,
		Status:          code,
		ServerTimestamp: now,
	}
}

func nonce() []byte {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return b
}
