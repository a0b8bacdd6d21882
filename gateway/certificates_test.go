package gateway

import (
	"testing"
	"time"

	"millrace/drivers/peer"
	"millrace/gateway/config"
	"millrace/gateway/web"
)

type certified []peer.Certificate

func (c certified) Certificates() []peer.Certificate { return c }

// TestCertificatesOfTheSnapshot: what a connection says of its certificates is asked for as it is.
func TestCertificatesOfTheSnapshot(t *testing.T) {
	from, to := time.Unix(1, 0), time.Unix(2, 0)
	g := &Gateway{running: running{destinations: []*destination{{cfg: config.Destination{Name: "cloud"},
		certified: certified{{Own: true, Name: "ca.pem", Authority: "root", NotBefore: from, NotAfter: to, Next: "next", Replaced: to}}}}}}
	want := web.Certificate{Kind: "destination", Owner: "cloud", Own: true, Name: "ca.pem", Authority: "root", NotBefore: from, NotAfter: to, Next: "next", Replaced: to}
	if got := g.certificates(); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
