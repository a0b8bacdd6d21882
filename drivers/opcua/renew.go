package opcua

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/files"
	"millrace/drivers/opcua/wire"
)

// maker is the organization of the certificates that we make: no other is renewed.
const maker = "millrace"

// renewBefore is when our certificate is renewed: late, because servers must trust the new one, and not so late that a
// gateway which connects once a week misses it.
const renewBefore = 7 * 24 * time.Hour

// renewable returns our certificate when we have made it ourselves, else nil.
func renewable(chain []byte) *x509.Certificate {
	all, err := x509.ParseCertificates(chain)
	if err != nil || len(all) != 1 || !bytes.Equal(all[0].RawIssuer, all[0].RawSubject) || !slices.Contains(all[0].Subject.Organization, maker) {
		return nil
	}
	return all[0]
}

// renew puts a new certificate of the same key in place of ours and returns it. The old one stays beside it. Several may do so
// at a time: they all make the same one.
func (p PKI) renew(path string, key *rsa.PrivateKey, old *x509.Certificate, now time.Time) ([]byte, error) {
	der, err := renewed(key, old, now)
	if err != nil {
		return nil, err
	}
	b, err := encodeOwn(key, der)
	if err != nil {
		return nil, err
	}
	temporary, err := writeBeside(path, b)
	if err != nil {
		return nil, err
	}
	defer os.Remove(temporary)
	if err := os.Link(path, p.ownUntil(old.NotAfter)); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return der, os.Rename(temporary, path)
}

// renewed makes the certificate that follows old: nothing of it depends on who makes it. It begins when old began, so that
// a clock which was wrong does no harm.
func renewed(key *rsa.PrivateKey, old *x509.Certificate, now time.Time) ([]byte, error) {
	next := *old
	next.SerialNumber = new(big.Int).Add(old.SerialNumber, big.NewInt(1))
	for next.NotAfter.Before(now.Add(2 * renewBefore)) {
		next.NotAfter = next.NotAfter.AddDate(ownYears, 0, 0)
	}
	return x509.CreateCertificate(rand.Reader, &next, &next, &key.PublicKey, key)
}

const untilPrefix = "millrace-until-"

func (p PKI) ownUntil(end time.Time) string {
	return filepath.Join(p.Path, "own", untilPrefix+end.UTC().Format(time.DateOnly)+".pem")
}

// replaced returns until when the last one before ours is valid, zero when there is none.
func (p PKI) replaced() (last time.Time) {
	entries, _ := os.ReadDir(filepath.Join(p.Path, "own"))
	for _, e := range entries[:min(len(entries), maxFiles)] {
		day, _ := strings.CutPrefix(strings.TrimSuffix(e.Name(), ".pem"), untilPrefix)
		if at, err := time.Parse(time.DateOnly, day); err == nil && at.After(last) {
			last = at
		}
	}
	return last
}

// seen are the certificates of the last attempt to connect.
type seen struct {
	mu                sync.Mutex
	own, user, server *drivers.Certificate
	passedOver        []string // see PKI.PassedOver
}

// Certificates returns ours, the user's and the server's: see drivers.Certified.
func (d *driver) Certificates() (all []drivers.Certificate) {
	d.set.seen.mu.Lock()
	defer d.set.seen.mu.Unlock()
	for _, c := range []*drivers.Certificate{d.set.seen.own, d.set.seen.user, d.set.seen.server} {
		if c != nil {
			all = append(all, *c)
		}
	}
	return all
}

func (s *seen) noteServer(c *x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = &drivers.Certificate{Name: c.Subject.CommonName, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

func (s *seen) notePassedOver(all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passedOver = all
}

func (s *seen) noteUser(path string, c *x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user = &drivers.Certificate{Own: true, Name: path, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

func (s *seen) noteOwn(p PKI, chain []byte) {
	all, err := x509.ParseCertificates(chain)
	if err != nil || len(all) == 0 {
		return
	}
	ends := files.Chain(all)[0]
	c := &drivers.Certificate{Own: true, Name: p.OwnFile(), NotBefore: ends.NotBefore, NotAfter: ends.NotAfter, Replaced: p.replaced()}
	if old := renewable(chain); old != nil {
		c.Next = fmt.Sprintf("it is renewed at the first connect after %s, and servers must then trust the new one",
			old.NotAfter.Add(-renewBefore).UTC().Format(time.DateOnly))
		if time.Now().After(old.NotAfter.Add(-renewBefore)) {
			c.Next = "it cannot be renewed: see who may write to its directory"
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own = c
}

// Held returns our certificate, where one is made already and will be used: see drivers.Holder.
func (d *driver) Held() []drivers.Certificate {
	p := d.set.pki
	b, err := files.Read(p.ownPair(), maxFile)
	if err != nil || d.set.policy == wire.None() {
		return nil
	}
	_, chain, err := parseOwn(b)
	if err != nil {
		return nil // Connect says it
	}
	all, err := x509.ParseCertificates(chain)
	if err != nil || renewable(chain) != nil { // it is renewed at the next connect
		return nil
	}
	ends := files.Chain(all)[0]
	return []drivers.Certificate{{Own: true, Name: p.ownPair(), NotBefore: ends.NotBefore, NotAfter: ends.NotAfter}}
}
