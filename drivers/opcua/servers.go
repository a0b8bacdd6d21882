package opcua

import (
	"context"
	"errors"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
)

// Bounds of a list of servers.
const (
	maxServers = 1000
	maxURLs    = 16 // of one
)

// FoundServer is a server that another one knows.
type FoundServer struct {
	Name, URI string
	Kind      string // server, client, client and server, discovery server
	URLs      []string
}

// findServers is a FindServers request behind its header (OPC 10000-4, 5.4.2).
type findServers struct {
	URL     string
	Locales []string
	Servers []string
}

// FindServers asks a server, best a discovery server, for those that it knows, on a channel without security: somebody on the way may have
// changed the answer.
func FindServers(ctx context.Context, url string, timeout time.Duration) (all []FoundServer, err error) {
	defer caught(&err)
	s := settings{timeout: timeout, lifetime: wire.MaxLifetime}
	var mistakes []error
	s.parseURL(url, func(field, what, mend string) {
		mistakes = append(mistakes, &drivers.ConfigError{Group: -1, Tag: -1, Field: field, What: what, Mend: mend})
	})
	if len(mistakes) > 0 {
		return nil, errors.Join(mistakes...)
	}
	l, err := s.reach(ctx, wire.Unsecured())
	if err != nil {
		return nil, err
	}
	defer l.close()
	r, err := l.call(ctx, id.FindServersRequest_Encoding_DefaultBinary, id.FindServersResponse_Encoding_DefaultBinary, encode(&findServers{URL: s.endpoint}))
	if err != nil {
		return nil, undisclosed(err)
	}
	all = r.servers()
	return all, r.Err
}

// servers takes an array of ApplicationDescriptions (OPC 10000-4, 7.2).
func (r *reader) servers() (all []FoundServer) {
	for n := r.Count(1); n > 0 && r.Err == nil; n-- {
		s := FoundServer{URI: string(r.Bytes())}
		r.Bytes() // product
		s.Name = string(r.LocalizedText())
		switch ua.ApplicationType(r.U32()) {
		case ua.ApplicationTypeServer:
			s.Kind = "server"
		case ua.ApplicationTypeClient:
			s.Kind = "client"
		case ua.ApplicationTypeClientAndServer:
			s.Kind = "client and server"
		case ua.ApplicationTypeDiscoveryServer:
			s.Kind = "discovery server"
		}
		r.Bytes() // gateway
		r.Bytes() // discovery profile
		for n := r.Count(4); n > 0 && r.Err == nil; n-- {
			if url := string(r.Bytes()); len(s.URLs) < maxURLs {
				s.URLs = append(s.URLs, url)
			}
		}
		if r.Err == nil && len(all) < maxServers {
			all = append(all, s)
		}
	}
	return all
}
