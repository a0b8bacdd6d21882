package config

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"millrace/drivers"
	"millrace/drivers/files"
)

// endsSoon is how long before its end a certificate is warned of: as the state of a running gateway is loud from then on.
const endsSoon = 7 * 24 * time.Hour

const newCertificate = "put a new one in its place; it is read at the next connect"

// doubtFile warns when the certificates in a file are not valid now or end within a week. That the file is right is not looked at here: what
// holds no certificate, such as a key, says nothing.
func (l *loader) doubtFile(f field, data []byte) {
	c := counts(files.Certificates(data))
	if c == nil {
		return
	}
	if state := stands(c.NotBefore, c.NotAfter, time.Now()); state != "" {
		l.warnf(l.at(f.v), newCertificate, "%s %s %s", f.name, quote(f.v.n.Value), state)
	}
}

// doubtHeld warns in the same way of certificates that no key of the config names, each file once.
func (l *loader) doubtHeld(device int, d drivers.Driver, said *[]string) {
	h, ok := d.(drivers.Holder)
	if !ok {
		return
	}
	for _, c := range h.Held() {
		state := stands(c.NotBefore, c.NotAfter, time.Now())
		if state == "" || c.Next != "" || slices.Contains(*said, c.Name) {
			continue
		}
		*said = append(*said, c.Name)
		at, _ := l.places[device].field(l, "url")
		l.warnf(at, newCertificate, "%s: our own certificate %s %s", called("device", l.cfg.Devices[device].Name), quote(c.Name), state)
	}
}

// stands says what is wrong with a certificate's time, "" for nothing.
func stands(from, to, now time.Time) string {
	switch day := to.UTC().Format(time.DateOnly); {
	case now.After(to):
		return fmt.Sprintf("ended on %s: connections are refused from then on", day)
	case now.Before(from):
		return fmt.Sprintf("is not valid before %s, by the clock of this machine: connections are refused until then", from.UTC().Format(time.DateOnly))
	case to.Sub(now) <= endsSoon:
		return fmt.Sprintf("ends on %s: connections are refused from then on", day)
	}
	return ""
}

// counts returns the certificate of a file that its use ends with: the first, which issuers may follow; of authorities, of which one is
// enough, the last to end. nil = there is none.
func counts(all []*x509.Certificate) *x509.Certificate {
	switch {
	case len(all) == 0:
		return nil
	case !all[0].IsCA:
		return all[0]
	}
	return slices.MaxFunc(all, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
}
