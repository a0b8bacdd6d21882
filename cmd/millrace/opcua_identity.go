package main

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"millrace/drivers/files"
	"millrace/drivers/opcua/opcuasim"
)

// uaIdentity returns the key and certificate of a simulated server: those in the file, which is made when it is not there, or new ones without a file.
func uaIdentity(file, listen string) (*opcuasim.Identity, error) {
	if file == "" {
		return opcuasim.NewIdentity(2048, uaTemplate(listen))
	}
	held, err := files.Read(file, 1<<20)
	switch {
	case err == nil:
		who, err := parseUAIdentity(held)
		if err != nil {
			return nil, fmt.Errorf("--identity %s: %w; remove it to have new ones made", file, err)
		}
		return who, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("--identity: %w", err)
	}
	who, err := opcuasim.NewIdentity(2048, uaTemplate(listen))
	if err != nil {
		return nil, err
	}
	text, err := uaPEM(who)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("--identity: %w", err)
	}
	return who, nil
}

// uaPEM writes a key and certificate as parseUAIdentity reads them.
func uaPEM(who *opcuasim.Identity) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(who.Key)
	if err != nil {
		return nil, fmt.Errorf("encode the server's key: %w", err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: who.Certificate}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...), nil
}

// uaTemplate is a certificate for a year, for this machine.
func uaTemplate(listen string) *x509.Certificate {
	t := opcuasim.Template()
	t.NotAfter = time.Now().AddDate(1, 0, 0)
	t.IPAddresses = append(t.IPAddresses, net.IPv6loopback)
	if name, err := os.Hostname(); err == nil {
		t.DNSNames = append(t.DNSNames, name)
	}
	host, _, err := net.SplitHostPort(listen)
	ip := net.ParseIP(host)
	switch {
	case err != nil:
	case ip == nil && host != "":
		t.DNSNames = append(t.DNSNames, host)
	case ip != nil && !ip.IsUnspecified():
		t.IPAddresses = append(t.IPAddresses, ip)
	default:
		all, _ := net.InterfaceAddrs()
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok {
				t.IPAddresses = append(t.IPAddresses, n.IP)
			}
		}
	}
	return t
}

// parseUAIdentity reads a certificate and an RSA key.
func parseUAIdentity(text []byte) (*opcuasim.Identity, error) {
	var who opcuasim.Identity
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			who.Certificate = append(who.Certificate, block.Bytes...)
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			who.Key, _ = key.(*rsa.PrivateKey)
		}
	}
	if who.Key == nil || len(who.Certificate) == 0 {
		return nil, errors.New("it does not hold a certificate and an RSA key in PEM (PRIVATE KEY)")
	}
	return &who, nil
}
