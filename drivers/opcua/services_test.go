package opcua

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// TestRequestsAreTheLibrarys holds that the requests made here are byte for byte those of the library.
func TestRequestsAreTheLibrarys(t *testing.T) {
	token := ua.NewByteStringNodeID(1, []byte("0123456789abcdef"))
	encodedToken, err := token.Encode()
	if err != nil {
		t.Fatal(err)
	}
	nodes := []*ua.ReadValueID{
		{NodeID: ua.NewStringNodeID(2, "Spindle.Speed"), AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}},
		{NodeID: ua.NewTwoByteNodeID(85), AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}},
	}
	var own [][]byte
	for _, n := range nodes {
		b, err := valueOf(n.NodeID)
		if err != nil {
			t.Fatal(err)
		}
		own = append(own, b)
	}
	client := &ua.ApplicationDescription{ApplicationURI: "urn:x", ApplicationName: ua.NewLocalizedText("x"), ApplicationType: ua.ApplicationTypeClient}
	signature := &ua.SignatureData{}
	identity := ua.NewExtensionObject(&ua.AnonymousIdentityToken{PolicyID: "anyone"})
	for _, c := range []struct {
		service uint16
		body    func([]byte) ([]byte, error)
		want    ua.Request
	}{
		{id.GetEndpointsRequest_Encoding_DefaultBinary, encode(&getEndpoints{URL: "opc.tcp://x"}), &ua.GetEndpointsRequest{EndpointURL: "opc.tcp://x"}},
		{id.ReadRequest_Encoding_DefaultBinary, encodeRead(own), &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth, NodesToRead: nodes}},
		{id.CreateSessionRequest_Encoding_DefaultBinary, encode(&createSession{Client: client, EndpointURL: "opc.tcp://x", SessionName: "s", Nonce: []byte("nonce"), Timeout: 5, MaxResponse: 7}),
			&ua.CreateSessionRequest{ClientDescription: client, EndpointURL: "opc.tcp://x", SessionName: "s", ClientNonce: []byte("nonce"), RequestedSessionTimeout: 5, MaxResponseMessageSize: 7}},
		{id.ActivateSessionRequest_Encoding_DefaultBinary, encode(&activateSession{Signature: signature, Locales: []string{"en"}, Identity: identity, TokenSignature: signature}),
			&ua.ActivateSessionRequest{ClientSignature: signature, LocaleIDs: []string{"en"}, UserIdentityToken: identity, UserTokenSignature: signature}},
		{id.BrowseRequest_Encoding_DefaultBinary, encodeBrowse(own[1][:2], ua.NodeClassVariable), &ua.BrowseRequest{View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)},
			NodesToBrowse: []*ua.BrowseDescription{{NodeID: ua.NewTwoByteNodeID(85), ReferenceTypeID: ua.NewTwoByteNodeID(id.HierarchicalReferences), IncludeSubtypes: true, NodeClassMask: uint32(ua.NodeClassVariable)}}}},
		{id.CreateSubscriptionRequest_Encoding_DefaultBinary, encodeCreateSubscription(terms{publish: 250 * time.Millisecond, life: 60, keepAlive: 7}, 1000),
			&ua.CreateSubscriptionRequest{RequestedPublishingInterval: 250, RequestedLifetimeCount: 60, RequestedMaxKeepAliveCount: 7, MaxNotificationsPerPublish: 1000, PublishingEnabled: true}},
		{id.CreateMonitoredItemsRequest_Encoding_DefaultBinary, encodeMonitor(9, 0, &plan{ids: own}, []int{1, 0}, 1500*time.Microsecond, 10),
			&ua.CreateMonitoredItemsRequest{SubscriptionID: 9, TimestampsToReturn: ua.TimestampsToReturnBoth, ItemsToCreate: []*ua.MonitoredItemCreateRequest{
				{ItemToMonitor: nodes[1], MonitoringMode: ua.MonitoringModeReporting, RequestedParameters: &ua.MonitoringParameters{ClientHandle: 1, SamplingInterval: 1.5, Filter: ua.NewExtensionObject(nil), QueueSize: 10, DiscardOldest: true}},
				{ItemToMonitor: nodes[0], MonitoringMode: ua.MonitoringModeReporting, RequestedParameters: &ua.MonitoringParameters{SamplingInterval: 1.5, Filter: ua.NewExtensionObject(nil), QueueSize: 10, DiscardOldest: true}}}}},
		{id.PublishRequest_Encoding_DefaultBinary, encodePublish([]ack{{9, 1}, {8, 3}}), &ua.PublishRequest{SubscriptionAcknowledgements: []*ua.SubscriptionAcknowledgement{
			{SubscriptionID: 9, SequenceNumber: 1}, {SubscriptionID: 8, SequenceNumber: 3}}}},
		{id.RepublishRequest_Encoding_DefaultBinary, encodeRepublish(ack{9, 4}), &ua.RepublishRequest{SubscriptionID: 9, RetransmitSequenceNumber: 4}},
		{id.DeleteMonitoredItemsRequest_Encoding_DefaultBinary, encodeDeleteItems(9, []uint32{5, 7}), &ua.DeleteMonitoredItemsRequest{SubscriptionID: 9, MonitoredItemIDs: []uint32{5, 7}}},
		{id.CloseSessionRequest_Encoding_DefaultBinary, encode(&closeSession{true}), &ua.CloseSessionRequest{DeleteSubscriptions: true}},
	} {
		got, err := c.body(wire.AppendHeader(nil, c.service, encodedToken, 42, 3*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		c.want.SetHeader(&ua.RequestHeader{AuthenticationToken: token, RequestHandle: 42, TimeoutHint: 3000})
		want, err := ua.Encode(c.want)
		if err != nil {
			t.Fatal(err)
		}
		const stamp = 4 + 23 // the type id and the token stand before the time
		at := time.Unix(0, int64(ticksOf(int64(leastBits(got[stamp:]))))*100)
		if age := time.Since(at); age < 0 || age > time.Minute {
			t.Errorf("%T: made %v ago", c.want, age)
		}
		if clear(got[stamp : stamp+8]); !bytes.Equal(got[4:], want) || ua.ServiceTypeID(c.want) != c.service {
			t.Errorf("%T:\ngot  %x\nwant %x", c.want, got[4:], want)
		}
	}
}

func leastBits(b []byte) uint64 {
	r := newReader(b)
	return r.U64()
}

// TestCertificates has servers that ask for a password and give keys that the library would stumble over.
func TestCertificates(t *testing.T) {
	good, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small := &rsa.PublicKey{N: big.NewInt(0).SetBit(big.NewInt(1), 500, 1), E: 65537}
	large := &rsa.PublicKey{N: big.NewInt(0).SetBit(big.NewInt(1), 20000, 1), E: 65537}
	policy := wire.PolicyByURI(ua.SecurityPolicyURIBasic256Sha256)
	for _, c := range []struct {
		name        string
		certificate []byte
		nonce       int
		want        string
	}{
		{"good", certificate(t, &good.PublicKey, good), 32, ""},
		{"elliptic curve", certificate(t, &curve.PublicKey, curve), 32, "the certificate holds a key of type *ecdsa.PublicKey, not RSA"},
		{"small key", certificate(t, small, good), 32, "the certificate's key has 501 bits"},
		{"large key", certificate(t, large, good), 32, "the certificate's key has 20001 bits"},
		{"large nonce", certificate(t, &good.PublicKey, good), 2000, "the server's nonce has 2000 bytes"},
	} {
		parsed, err := x509.ParseCertificate(c.certificate)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := encrypt("secret", policy, parsed, make([]byte, c.nonce))
		switch {
		case c.want == "" && (err != nil || len(secret) != 256):
			t.Errorf("%s: %d bytes, %v", c.name, len(secret), err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want …%s…", c.name, err, c.want)
		}
	}
}

func certificate(t *testing.T, public, signer any) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// again is a server that gives its answers in turn, the last of them for ever, to whatever it is asked.
type again struct {
	script
	answers  []opcuasim.Answer
	next     int
	last     []byte
	asked    chan uint32 // ids of requests
	left     []byte
	sequence uint32
}

func (a *again) Write(b []byte) (int, error) {
	request := uint32(0)
	switch string(b[:3]) {
	case "MSG":
		request = uint32(leastBits(b[20:28]))
	case "OPN":
		request = 1
	}
	a.asked <- request
	return len(b), nil
}

func (a *again) Read(b []byte) (int, error) {
	if len(a.left) == 0 {
		a.answer(<-a.asked)
	}
	n := copy(b, a.left)
	a.left = a.left[n:]
	return n, nil
}

func (a *again) answer(request uint32) {
	if a.next < len(a.answers) {
		a.last = a.answers[a.next].Bytes()
		a.next++
	}
	a.sequence++
	switch string(a.last[:3]) {
	case "MSG":
		copy(a.last[16:], words(a.sequence, request))
	case "OPN":
		copy(a.last[8+4+4+len(ua.SecurityPolicyURINone)+8:], words(a.sequence, request))
	}
	a.left = a.last
}

func words(v ...uint32) (b []byte) {
	for _, w := range v {
		b = append(b, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	return b
}

// poller is a driver that polls count nodes of a server that costs nothing.
func poller(t testing.TB, count int) *driver {
	t.Helper()
	made, err := newDriver(connection("opc.tcp://host", time.Hour, variables(count)...))
	if err != nil {
		t.Fatal(err)
	}
	made.(*driver).failures = maxFailures // no census: what follows is told by the number of reads
	d := made.(*driver)
	var values [][]byte
	for i := range count {
		values = append(values, append(opcuasim.Number(float64(i)), 0, 0, 0, 0, 0, 0, 0, 1))
		values[i][0] |= 4 // a source time
	}
	answers := honestAnswers(0)[:6]
	answers = append(answers, opcuasim.Answer{Kind: "MSG", Body: opcuasim.ReadBody(values...)})
	if err := d.over(t.Context(), &again{answers: answers, asked: make(chan uint32, 1)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.link.dead = true })
	d.most = count
	return d
}

// TestPollCostsNoAllocationPerReading holds the budget of the hot path.
func TestPollCostsNoAllocationPerReading(t *testing.T) {
	d := poller(t, 1000)
	var dst []telemetry.Reading
	n := testing.AllocsPerRun(100, func() {
		var err error
		if dst, err = d.Read(t.Context(), drivers.Ref{}, dst[:0]); err != nil {
			t.Fatal(err)
		}
	})
	if n > 20 {
		t.Errorf("a poll of 1000 nodes costs %v allocations", n)
	}
	wantNumbers(t, dst, nil)
}

// BenchmarkPoll1000 is the driver alone.
func BenchmarkPoll1000(b *testing.B) {
	d := poller(b, 1000)
	var dst []telemetry.Reading
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = d.Read(b.Context(), drivers.Ref{}, dst[:0]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/value")
}
