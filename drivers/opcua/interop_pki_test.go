package opcua

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"millrace/drivers/drivertest"
	"millrace/drivers/telemetry"
)

// TestNodeOPCUACertificates: node-opcua-pki has made authorities, their revocation lists and a certificate for each of these servers, which node-opcua shows. What must
// not be taken is refused at the first connect, at the next two, and each time with its own message.
func TestNodeOPCUACertificates(t *testing.T) {
	t.Parallel()
	made, urls := nodePKI(t), map[string]string{}
	for _, c := range []struct {
		name, server     string
		trusted, issuers []string // files of made
		want             string
		long             bool // TestBadCertificates has it, too
	}{
		{"of a trusted issuer", "good", []string{"root.der", "root.crl"}, nil, "", false},
		{"chain, sent by the server", "chained", []string{"root.der", "root.crl"}, nil, "", false},
		{"chain, completed by us", "unchained", []string{"root.der", "root.crl"}, []string{"middle.der", "middle.crl"}, "", false},
		{"not revoked by its issuer", "good", []string{"root.der", "other.crl"}, nil, "", false},
		{"unknown", "stranger", []string{"root.der", "root.crl"}, nil, `is not trusted, nor is its issuer "other", whose certificate is neither in trusted/ nor in issuers/`, true},
		{"of an issuer that is known, not trusted", "stranger", []string{"root.der"}, []string{"other.der", "other.crl"}, `is not trusted, nor is its issuer "other"; compare`, true},
		{"broken chain", "unchained", []string{"root.der", "root.crl"}, nil, `is not trusted, nor is its issuer "middle", whose certificate is neither in trusted/ nor in issuers/`, false},
		{"revoked", "revoked", []string{"root.der", "root.crl"}, nil, "was revoked on ", false},
		{"revoked and pinned", "revoked", []string{"revoked.pem"}, []string{"root.der", "root.crl"}, "was revoked on ", false},
		{"issuer revoked", "orphan", []string{"root.der", "root.crl"}, nil, `has an issuer "lapsed" that was revoked on `, true},
		{"expired", "expired", []string{"root.der", "root.crl"}, nil, "expired on ", true},
		{"not yet valid", "early", []string{"root.der", "root.crl"}, nil, "is not valid before ", true},
		{"other host", "host", []string{"root.der", "root.crl"}, nil, `is for "press-7, 10.0.0.7", not for 127.0.0.1; use one of its names in url, or write server_name to say which to expect`, true},
		{"other URI", "uri", []string{"root.der", "root.crl"}, nil, "is for another application than the server says to be", true},
		{"weak key", "weak", []string{"root.der", "root.crl"}, nil, "has a key of 1024 bits, and 2048 to 4096 are allowed", true},
	} {
		if c.long && !*long {
			continue
		}
		if urls[c.server] == "" {
			urls[c.server] = nodeOPCUA(t, "certificate", filepath.Join(made, c.server))
		}
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			ownIn(t, dir)
			lay := func(folder string, names []string) {
				for _, name := range names {
					b, err := os.ReadFile(filepath.Join(made, name))
					if err != nil {
						t.Fatal(err)
					}
					write(t, filepath.Join(dir, folder, name), b)
				}
			}
			lay("trusted", c.trusted)
			lay("issuers", c.issuers)
			conn := connection(urls[c.server], 20*time.Second, "i=2258")
			conn.Devices[0].Options = map[string]string{"pki": dir}
			for range 3 {
				if c.want != "" {
					refused(t, conn, c.want)
				} else if r := read(t, connect(t, conn)); r[0].Quality != telemetry.Good {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// TestNodeOPCUATrustsUs: a server that does not know our certificate refuses us, and each time it is said where that is. Once it was moved there, the server takes us.
func TestNodeOPCUATrustsUs(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	url, _ := nodeOPCUAIn(t, directory, "wary")
	c := nodeDevice(t, url, nodeGroup(time.Second, "Interop.Double"))
	p := PKI{c.Devices[0].Options["pki"]}
	for range 2 {
		refused(t, c, "it may have to trust our certificate first: "+p.OwnFile()+", thumbprint ")
	}
	der, err := os.ReadFile(p.OwnFile())
	if err != nil {
		t.Fatal(err)
	}
	trusted := filepath.Join(directory, "pki", "trusted", "certs", "millrace.der")
	deadline := time.Now().Add(time.Minute) // node-opcua looks at its folders now and then
	for {
		write(t, trusted, der)
		if err := os.RemoveAll(filepath.Join(directory, "pki", "rejected")); err != nil {
			t.Fatal(err)
		}
		d, err := newDriver(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		if err := d.Connect(t.Context()); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("trusted, and still: %v", err)
		}
		time.Sleep(time.Second)
	}
}

// nodePKI has node-opcua-pki make certificates and returns their folder: see pki.js.
func nodePKI(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(nodeFolder, "node_modules", "node-opcua-pki")); err != nil {
		drivertest.Lacks(t, "node-opcua is not installed: npm ci --ignore-scripts --prefix gateway/faults/testdata/opcua")
	}
	dir := t.TempDir()
	if out, err := exec.Command("node", filepath.Join(nodeFolder, "pki.js"), dir).CombinedOutput(); err != nil {
		t.Fatalf("node-opcua-pki: %v %s", err, out)
	}
	return dir
}
