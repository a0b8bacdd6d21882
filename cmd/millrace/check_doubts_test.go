package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/gateway/config"
)

// TestCheckOfHosts: a host that can be none is a mistake wherever it stands.
func TestCheckOfHosts(t *testing.T) {
	device := func(driver, url, address string) string {
		return "  - {name: d, driver: " + driver + ", url: '" + url + "', groups: [{name: f, interval: 1s, tags: [{name: x, address: '" + address + "'}]}]}\n"
	}
	good := device("modbus", "tcp://192.168.1.30", "holding:1")
	for devices, want := range map[string]string{
		device("modbus", "tcp://192.168.1.300:502", "holding:1"):        `device "d": url "tcp://192.168.1.300:502": "192.168.1.300" is no address and can be no name`,
		device("opcua", "opc.tcp://192.168.1", "ns=2;s=x"):              `device "d": url "opc.tcp://192.168.1": "192.168.1" is no address and can be no name`,
		good + "web: {listen: '192.168.1.300:9280'}\n":                  `listen "192.168.1.300:9280" has no valid host`,
		good + "include: more.yaml\n":                                   `url "mqtt://192.168.1.300": the host is no address and can be no name`,
		device("modbus", "tcp-listen://192.168.300.1:502", "holding:1"): `"192.168.300.1" is no address and can be no name`,
	} {
		t.Chdir(t.TempDir())
		writeFile(t, "more.yaml", "destinations: [{name: b, url: 'mqtt://192.168.1.300'}]\n")
		text := "gateway: hall\ndestinations: [{name: cloud, url: 'mqtt://broker.example'}]\ndevices:\n" + devices
		writeFile(t, "c.yaml", text)
		if _, err := config.Load("c.yaml", protocols(), config.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

// TestCheckOfTwins: one device that is written in two ways stands twice.
func TestCheckOfTwins(t *testing.T) {
	device := func(name, driver, more, address string) string {
		return "  - {name: " + name + ", driver: " + driver + ", " + more + ", groups: [{name: f, interval: 1s, tags: [{name: x, address: '" + address + "'}]}]}\n"
	}
	for _, c := range []struct{ devices, want string }{
		{device("a", "modbus", "url: tcp://h", "holding:1") + device("b", "modbus", "url: 'tcp://H:502', unit: 1", "holding:9"), `device "b" has the same driver and url and unit as "a"`},
		{device("a", "modbus", "url: tcp://h", "holding:1") + device("b", "modbus", "url: 'tcp://h', unit: 2", "holding:1"), ""},
		{device("a", "opcua", "url: opc.tcp://h", "ns=2;s=x") + device("b", "opcua", "url: 'opc.tcp://H:4840/'", "ns=2;s=x"), `device "b" has the same driver and url and addresses as "a"`},
		{device("a", "opcua", "url: opc.tcp://h", "ns=2;s=x") + device("b", "opcua", "url: opc.tcp://h", "ns=2;s=y"), ""},
	} {
		if got := plan(t, c.devices); !strings.Contains(got, c.want) || strings.Contains(got, "asked twice") != (c.want != "") {
			t.Errorf("%s%s\nwant %s", c.devices, got, c.want)
		}
	}
}

// TestCheckOfOwnCertificate: that the certificate which an authority of the plant has made for us ends is said before a server refuses it.
func TestCheckOfOwnCertificate(t *testing.T) {
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	made := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hall", Organization: []string{"plant"}}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), URIs: []*url.URL{{Scheme: "urn", Opaque: "hall:millrace"}}}
	der, err := x509.CreateCertificate(rand.Reader, made, made, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "own", "millrace.pem")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))+
		string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	devices := ""
	for _, name := range []string{"a", "b"} {
		devices += "  - {name: " + name + ", driver: opcua, url: opc.tcp://" + name + ", groups: [{name: f, interval: 1s, tags: [{name: x, address: 'ns=2;s=x'}]}]}\n"
	}
	got := plan(t, devices+"pki: {path: "+dir+"}\n")
	if want := "our own certificate \"" + file + "\" ends on "; strings.Count(got, want) != 1 {
		t.Errorf("%s\nwant once: %s", got, want)
	}
}

// TestCheckOfCertificateFiles: what is wrong with the files of certificates is a mistake or a warning at their key, of devices as of destinations.
func TestCheckOfCertificateFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	own, other := rsaPair(t, time.Hour*24*30), rsaPair(t, time.Hour*24*30)
	old := rsaPair(t, -time.Hour)
	for name, text := range map[string]string{"own.pem": own.cert, "own.key": own.key, "other.key": other.key, "old.pem": old.cert, "old.key": old.key,
		"both.pem": own.cert + own.key, "behind.pem": other.cert + own.cert, "cut.pem": own.cert + other.cert[:200], "empty.pem": "", "own.der": own.der,
		"marked.pem": own.cert + "\ufeff" + other.cert, "joined.pem": strings.TrimSpace(own.cert) + other.cert, "dash.pem": own.cert + other.cert[1:], "two.key": other.key + own.key,
		"locked.key": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"} {
		writeFile(t, name, text)
	}
	const modbus, opcua = "driver: modbus, url: 'tcp+tls://h', groups: [{name: f, interval: 1s, tags: [{name: x, address: 'holding:1'}]}], ", "driver: opcua, url: 'opc.tcp://h', groups: [{name: f, interval: 1s, tags: [{name: x, address: 'ns=2;s=x'}]}], "
	for keys, want := range map[string]string{
		modbus + "ca_file: own.pem, cert_file: own.pem, key_file: own.key":       "",
		modbus + "cert_file: both.pem, key_file: both.pem":                       "",
		modbus + "ca_file: none.pem":                                             `read ca_file "none.pem": it does not exist; check the path and its permissions; it is relative to the folder of this file`,
		modbus + "ca_file: .":                                                    `read ca_file ".": it is not a regular file`,
		modbus + "ca_file: empty.pem":                                            `ca_file "empty.pem" is empty`,
		modbus + "ca_file: own.der":                                              `ca_file "own.der" is a certificate in DER, not PEM; openssl x509 -inform der`,
		modbus + "ca_file: marked.pem, cert_file: marked.pem, key_file: own.key": "",
		modbus + "ca_file: joined.pem":                                           "",
		modbus + "ca_file: dash.pem":                                             `ca_file "dash.pem" has in line `,
		modbus + "cert_file: own.pem, key_file: two.key":                         `key_file "two.key" holds 2 private keys, and the first, which is used, is not that of the certificate; leave`,
		opcua + "user_certificate: marked.pem, user_key: own.key":                "",
		opcua + "user_certificate: dash.pem, user_key: own.key":                  `user_certificate "dash.pem" has in line `,
		opcua + "user_certificate: own.pem, user_key: two.key":                   `user_key "two.key" holds 2 private keys`,
		modbus + "ca_file: cut.pem":                                              `ca_file "cut.pem" is damaged or cut off: certificate 2`,
		modbus + "ca_file: old.pem":                                              `WARNING: c.yaml:4:136: ca_file "old.pem" ended on `,
		modbus + "ca_file: both.pem":                                             `ca_file "both.pem" holds a private key, too`,
		modbus + "cert_file: old.pem, key_file: old.key":                         `cert_file "old.pem" ended on `,
		modbus + "cert_file: own.pem, key_file: other.key":                       `cert_file "own.pem" is not the certificate of the key`,
		modbus + "cert_file: own.pem, key_file: locked.key":                      `key_file "locked.key" holds a key with a passphrase`,
		modbus + "cert_file: own.pem":                                            "give both or none",
		opcua + "user_certificate: own.pem, user_key: own.key":                   "",
		opcua + "user_certificate: own.der, user_key: own.key":                   "",
		opcua + "user_certificate: both.pem":                                     "",
		opcua + "user_certificate: none.pem":                                     `read user_certificate "none.pem": it does not exist`,
		opcua + "user_certificate: own.pem, user_key: none.key":                  `read user_key "none.key": it does not exist`,
		opcua + "user_certificate: empty.pem":                                    `user_certificate "empty.pem" is empty`,
		opcua + "user_certificate: own.key, user_key: own.pem":                   `user_certificate "own.key" holds a private key and no certificate`,
		opcua + "user_certificate: own.pem, user_key: other.key":                 `user_certificate "own.pem" is not the certificate of the key`,
		opcua + "user_certificate: own.pem, user_key: locked.key":                `user_key "locked.key" holds a key with a passphrase`,
		opcua + "user_certificate: own.pem, user_key: empty.pem":                 `user_key "empty.pem" is empty`,
		opcua + "user_certificate: own.pem":                                      `user_certificate "own.pem" holds a certificate and no private key; write user_key`,
		opcua + "user_certificate: behind.pem, user_key: own.key":                `user_certificate "behind.pem" begins with another certificate than that of the key, which is number 2`,
		opcua + "user_certificate: old.pem, user_key: old.key":                   `user_certificate "old.pem" ended on `,
	} {
		writeFile(t, "c.yaml", "gateway: hall\ndestinations: [{name: cloud, url: 'mqtt://broker.example'}]\ndevices:\n  - {name: a, "+keys+"}\n")
		var out bytes.Buffer
		cfg, err := config.Load("c.yaml", protocols(), config.Options{})
		if err == nil {
			err = printPlan(&out, cfg)
		}
		got := fmt.Sprint(out.String(), err)
		if good := err == nil && !strings.Contains(got, "WARNING"); good != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s\n%s\nwant %s", keys, got, want)
		}
	}
}

// rsaCertificate is a certificate with its key, as texts in PEM, and in DER.
type rsaCertificate struct{ cert, key, der string }

// rsaPair makes one that ends in so long.
func rsaPair(t *testing.T, left time.Duration) rsaCertificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	made := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hall"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(left)}
	der, err := x509.CreateCertificate(rand.Reader, made, made, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return rsaCertificate{block("CERTIFICATE", der), block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), string(der)}
}
