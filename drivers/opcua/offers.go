package opcua

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
)

// Offer is one way to connect that a server offers, in the words of the config.
type Offer struct {
	Policy, Mode string // Policy is the URI where it is not known to this driver
	Users        string
	URL, Server  string            // as the server says them; Server is its application URI
	Certificate  *x509.Certificate // nil for none that can be read
}

// Offers asks a server what it offers, the strongest first, on a channel without security: somebody on the way may have changed it.
func Offers(ctx context.Context, url string, timeout time.Duration) (all []Offer, err error) {
	defer caught(&err)
	s := settings{timeout: timeout, lifetime: wire.MaxLifetime}
	var mistakes []error
	s.parseURL(url, func(field, what, mend string) {
		mistakes = append(mistakes, &drivers.ConfigError{Group: -1, Tag: -1, Field: field, What: what, Mend: mend})
	})
	if s.reverse != nil {
		mistakes = append(mistakes, errors.New("a server that calls is not asked here; use its own url, such as opc.tcp://192.168.1.20:4840"))
	}
	if len(mistakes) > 0 {
		return nil, errors.Join(mistakes...)
	}
	l, err := s.reach(ctx, wire.Unsecured())
	if err != nil {
		return nil, err
	}
	defer l.close()
	list, err := l.endpoints(ctx, s.endpoint)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b endpoint) int {
		switch {
		case a.policy == nil || b.policy == nil || !a.stronger(&b) && !b.stronger(&a):
			return 0
		case a.stronger(&b):
			return -1
		}
		return 1
	})
	for i := range list {
		all = append(all, list[i].offer())
	}
	return all, nil
}

func (e *endpoint) offer() Offer {
	o := Offer{Policy: e.uri, Mode: e.mode.String(), Users: kinds(e.users), URL: e.url, Server: e.server}
	if e.policy != nil {
		o.Policy = e.policy.Name
	}
	if c, err := x509.ParseCertificate(wire.Leaf(e.certificate)); err == nil {
		o.Certificate = c
	}
	return o
}
