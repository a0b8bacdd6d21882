package opcua

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

// endpoint is one way to connect that a server offers (OPC 10000-4, 7.14).
type endpoint struct {
	url, server string // server is its application URI
	name        string
	uri         string       // of the security policy
	policy      *wire.Policy // nil when we do not know it
	mode        wire.Mode
	certificate []byte // DER, its issuers behind it; nil for none
	transport   string
	users       []userPolicy
}

// userPolicy is one way to log in at an endpoint.
type userPolicy struct {
	id, security string // the policy URI of the password's encryption, "" for the endpoint's
	kind         ua.UserTokenType
}

const binaryTransport = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"

// endpoints asks the server for what it offers.
func (l *link) endpoints(ctx context.Context, url string) ([]endpoint, error) {
	r, err := l.call(ctx, id.GetEndpointsRequest_Encoding_DefaultBinary, id.GetEndpointsResponse_Encoding_DefaultBinary, encode(&getEndpoints{URL: url}))
	if err != nil {
		return nil, undisclosed(err)
	}
	all := r.endpoints()
	return all, r.Err
}

// choose returns the endpoint to connect to: the one that the config names, else the strongest. Without security only when the config says so.
func (s *settings) choose(offers []endpoint) (*endpoint, error) {
	var best *endpoint
	for i := range offers {
		if e := &offers[i]; s.allows(e) && (best == nil || e.stronger(best)) {
			best = e
		}
	}
	if best != nil {
		return best, nil
	}
	return nil, s.noneFits(offers)
}

func (s *settings) allows(e *endpoint) bool {
	switch {
	case !e.usable():
		return false
	case s.policy != nil && e.policy != s.policy:
		return false
	case s.policy == nil && (e.mode == wire.ModeNone || e.policy.Insecure && !s.insecure):
		return false
	}
	return s.mode == 0 || e.mode == s.mode
}

// usable reports whether we could speak with the endpoint at all.
func (e *endpoint) usable() bool {
	return e.policy != nil && (e.transport == binaryTransport || e.transport == "") &&
		(e.mode == wire.ModeNone) == (e.policy == wire.None()) && e.mode >= wire.ModeNone && e.mode <= wire.ModeSignAndEncrypt
}

func (e *endpoint) stronger(than *endpoint) bool {
	if e.mode != than.mode {
		return e.mode > than.mode
	}
	return e.policy.Strength > than.policy.Strength
}

// noneFits says in words what the server offers and what to write.
func (s *settings) noneFits(offers []endpoint) error {
	what := offered(offers)
	secured := slices.ContainsFunc(offers, func(e endpoint) bool { return e.usable() && e.mode != wire.ModeNone })
	unsecured := slices.ContainsFunc(offers, func(e endpoint) bool { return e.usable() && e.mode == wire.ModeNone })
	switch {
	case what == "":
		return errors.New("the server offers no endpoint that this driver knows; look at its security settings")
	case s.policy == nil && s.mode == 0 && !secured && unsecured:
		return errors.New(`the server offers unsecured connections only, which anybody on the way can read and change; write "security_policy: none" to allow that`)
	case s.policy == nil && s.mode == 0:
		return fmt.Errorf(`the server offers withdrawn security policies only: %s; write "allow_insecure: true" to allow them`, what)
	case s.policy == wire.None():
		return fmt.Errorf(`the server takes no unsecured connections; it offers %s; remove "security_policy: none" to take the strongest of these`, what)
	}
	best := strongest(offers)
	if best.mode == wire.ModeNone {
		return fmt.Errorf(`the server offers no endpoint with %s; it offers unsecured connections only, which anybody on the way can read and change; %s to allow that`, s.demand(), best.mend())
	}
	return fmt.Errorf("the server offers no endpoint with %s; it offers %s; %s for the strongest of these", s.demand(), what, best.mend())
}

// strongest returns the strongest of the endpoints that we could speak with, nil for none.
func strongest(offers []endpoint) (best *endpoint) {
	for i := range offers {
		if e := &offers[i]; e.usable() && (best == nil || e.stronger(best)) {
			best = e
		}
	}
	return best
}

// mend says what to write in the config to get this endpoint.
func (e *endpoint) mend() string {
	switch {
	case e.mode == wire.ModeNone:
		return `write "security_policy: none" and no security_mode`
	case e.policy.Insecure:
		return fmt.Sprintf(`write "security_policy: %s", "security_mode: %v" and "allow_insecure: true"`, e.policy.Name, e.mode)
	}
	return fmt.Sprintf(`write "security_policy: %s" and "security_mode: %v"`, e.policy.Name, e.mode)
}

// demand says what the config asks for, as it asks for it.
func (s *settings) demand() string {
	var parts []string
	if s.policy != nil {
		parts = append(parts, "security_policy "+s.policy.Name)
	}
	if s.mode != 0 {
		parts = append(parts, "security_mode "+s.mode.String())
	}
	return strings.Join(parts, " and ")
}

// offered lists the usable endpoints in the words of the config, the strongest first.
func offered(offers []endpoint) string {
	var usable []*endpoint
	for i := range offers {
		if offers[i].usable() {
			usable = append(usable, &offers[i])
		}
	}
	slices.SortStableFunc(usable, func(a, b *endpoint) int {
		if a.stronger(b) {
			return -1
		}
		return 1
	})
	var words []string
	for _, e := range usable {
		word := e.policy.Name
		if e.mode != wire.ModeNone {
			word += " " + e.mode.String()
		}
		if !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}

// downgraded reports an endpoint that the server names in its signed answer, that would have been chosen, and that was not in the list
// that came unsigned: somebody on the way has taken it out.
func (s *settings) downgraded(chosen *endpoint, signed []endpoint) error {
	for i := range signed {
		if e := &signed[i]; s.allows(e) && e.stronger(chosen) {
			return protocolError(fmt.Sprintf("the server also offers %s %v, which the list of endpoints did not say: somebody on the way may have changed it", e.policy.Name, e.mode))
		}
	}
	return nil
}

// user returns the way to log in of the kind that the config wants; of several the one whose encryption is strongest.
func (e *endpoint) user(kind ua.UserTokenType) *userPolicy {
	var best *userPolicy
	for i := range e.users {
		u := &e.users[i]
		if u.kind == kind && (best == nil || e.encryption(u).strength() > e.encryption(best).strength()) {
			best = u
		}
	}
	return best
}

// cipher is how a password is encrypted; nil when the policy is not known.
type cipher struct{ *wire.Policy }

func (c cipher) strength() int {
	if c.Policy == nil {
		return -1
	}
	return c.Strength
}

func (e *endpoint) encryption(u *userPolicy) cipher {
	if u.security == "" {
		return cipher{e.policy}
	}
	return cipher{wire.PolicyByURI(u.security)}
}
