package opcuasim

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uasc"
)

func (s *Server) addStandardNodes() {
	numeric := func(n uint32) string { return fmt.Sprintf("i=%d", n) }
	s.AddNode(uaURI, numeric(id.Server_NamespaceArray), func() any { return s.namespaces })
	s.AddNode(uaURI, numeric(id.Server_ServerStatus_CurrentTime), func() any { return time.Now().UTC() })
	s.AddNode(uaURI, numeric(id.Server_ServerStatus_State), func() any { return int32(ua.ServerStateRunning) })
	if n := s.opts.MaxNodesPerRead; n > 0 && !s.opts.HideLimit {
		s.AddNode(uaURI, numeric(id.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead), func() any { return uint32(n) })
	}
}

// answer serves one request.
func (s *Server) answer(channel *uasc.SecureChannel, req ua.Request) ua.Response {
	var res ua.Response
	status := ua.StatusOK
	switch r := req.(type) {
	case *ua.GetEndpointsRequest:
		res = &ua.GetEndpointsResponse{Endpoints: s.endpoints(r.EndpointURL)}
	case *ua.CreateSessionRequest:
		res = s.createSession(r)
	case *ua.ActivateSessionRequest:
		if status = s.activate(r); status == ua.StatusOK {
			res = &ua.ActivateSessionResponse{ServerNonce: nonce()}
		}
	case *ua.CloseSessionRequest:
		if status = s.session(req, false); status == ua.StatusOK {
			s.mu.Lock()
			delete(s.sessions, r.RequestHeader.AuthenticationToken.String())
			s.mu.Unlock()
			res = &ua.CloseSessionResponse{}
		}
	case *ua.ReadRequest:
		if status = s.session(req, true); status == ua.StatusOK {
			res, status = s.read(r)
		}
	default:
		status = ua.StatusBadServiceUnsupported
	}
	if status != ua.StatusOK {
		res = &ua.ServiceFault{}
	}
	res.SetHeader(&ua.ResponseHeader{
		Timestamp:          time.Now(),
		RequestHandle:      req.Header().RequestHandle,
		ServiceResult:      status,
		ServiceDiagnostics: &ua.DiagnosticInfo{},
		AdditionalHeader:   ua.NewExtensionObject(nil),
	})
	return res
}

func (s *Server) endpoints(url string) []*ua.EndpointDescription {
	e := &ua.EndpointDescription{
		EndpointURL: url,
		Server: &ua.ApplicationDescription{
			ApplicationURI:  ServerURI,
			ApplicationName: ua.NewLocalizedText("millrace simulated machine"),
			ApplicationType: ua.ApplicationTypeServer,
		},
		SecurityMode:        ua.MessageSecurityModeNone,
		SecurityPolicyURI:   ua.SecurityPolicyURINone,
		TransportProfileURI: "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary",
		UserIdentityTokens:  []*ua.UserTokenPolicy{{PolicyID: "anyone", TokenType: ua.UserTokenTypeAnonymous}},
	}
	if s.login != nil {
		e.ServerCertificate = s.login.certificate
		e.UserIdentityTokens = []*ua.UserTokenPolicy{{
			PolicyID: "user", TokenType: ua.UserTokenTypeUserName, SecurityPolicyURI: ua.SecurityPolicyURIBasic256Sha256,
		}}
	}
	return []*ua.EndpointDescription{e}
}

func (s *Server) createSession(r *ua.CreateSessionRequest) ua.Response {
	token := ua.NewByteStringNodeID(1, nonce())
	s.mu.Lock()
	s.sessions[token.String()] = false
	s.mu.Unlock()
	res := &ua.CreateSessionResponse{
		SessionID:             ua.NewNumericNodeID(1, s.serial.Add(1)),
		AuthenticationToken:   token,
		RevisedSessionTimeout: r.RequestedSessionTimeout,
		ServerNonce:           nonce(),
		ServerEndpoints:       s.endpoints(r.EndpointURL),
		ServerSignature:       &ua.SignatureData{},
	}
	if s.login != nil {
		res.ServerCertificate, res.ServerNonce = s.login.certificate, s.login.nonce
	}
	return res
}

func (s *Server) activate(r *ua.ActivateSessionRequest) ua.StatusCode {
	if code := s.session(r, false); code != ua.StatusOK {
		return code
	}
	if s.login != nil && !s.login.accepts(r.UserIdentityToken) {
		return ua.StatusBadUserAccessDenied
	}
	s.mu.Lock()
	s.sessions[r.RequestHeader.AuthenticationToken.String()] = true
	s.mu.Unlock()
	return ua.StatusOK
}

// session checks that the request belongs to a session, and to an activated one if asked.
func (s *Server) session(req ua.Request, activated bool) ua.StatusCode {
	s.mu.RLock()
	defer s.mu.RUnlock()
	active, ok := s.sessions[req.Header().AuthenticationToken.String()]
	switch {
	case !ok:
		return ua.StatusBadSessionIDInvalid
	case activated && !active:
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
	now := time.Now()
	res := &ua.ReadResponse{Results: make([]*ua.DataValue, len(r.NodesToRead))}
	for i, n := range r.NodesToRead {
		res.Results[i] = withTimes(s.readNode(n, now), r.TimestampsToReturn)
	}
	return res, ua.StatusOK
}

func (s *Server) readNode(r *ua.ReadValueID, now time.Time) *ua.DataValue {
	key, ok := s.find(r.NodeID)
	value := s.nodes[key]
	switch code := s.bad[key]; {
	case !ok || value == nil:
		return badValue(ua.StatusBadNodeIDUnknown, now)
	case r.AttributeID != ua.AttributeIDValue:
		return badValue(ua.StatusBadAttributeIDInvalid, now)
	case code != 0:
		return badValue(code, now)
	}
	v := value()
	dv, ready := v.(*ua.DataValue)
	if !ready {
		if dv = dataValue(v, now); dv == nil {
			return badValue(ua.StatusBadInternalError, now)
		}
	}
	if s.opts.Served != nil && dv.Status>>31 == 0 && key.uri != uaURI {
		s.opts.Served(key.identifier, v)
	}
	return dv
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
