package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
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
