package config

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"millrace/drivers"
	"millrace/drivers/files"
)

// endsSoon is how long before its end a certificate is warned of: as the state of a running gateway is loud from then on.
const endsSoon = 7 * 24 * time.Hour

const (
	newCertificate = "put a new one in its place; it is read at the next connect"
	newAuthority   = "put its successor in its place or beside it, or take it out if no peer has a certificate from it any more; the file is read at the next connect"
)

// judgeOptions judges the files of certificates that a device's own keys name.
func (l *loader) judgeOptions(known []drivers.Option) {
	for i := range known {
		o := &known[i]
		f, key := l.pems[o.Name], l.pems[o.KeyFile]
		if _, given := l.pems[o.KeyFile]; o.Certificates == nil || f == nil || given && key == nil {
			continue
		}
		l.judgeFile(f, key, o.KeyFile != "", o.Certificates)
	}
}

// judgeFile refuses a file of certificates that cannot be used, and warns of those that are not valid now or end within a week: once, however many
// devices name it. key is the file of the key of our own one, nil for none.
func (l *loader) judgeFile(f, key *pemFile, own bool, read func(b, key []byte) ([]*x509.Certificate, error)) {
	id, keyData := f.name+"\x00"+f.path, []byte(nil)
	if key != nil {
		id, keyData = id+"\x00"+key.path, key.data
	}
	err, known := l.judged[id]
	if !known {
		var all []*x509.Certificate
		all, err = read(f.data, keyData)
		l.judged[id] = err
		switch now := time.Now(); {
		case err != nil || len(all) == 0:
		case own:
			l.doubtChain(f, files.Chain(all), all[0], now)
		default:
			l.doubtAuthorities(f, all, now)
		}
	}
	flaw, ok := errors.AsType[*files.Flaw](err)
	switch {
	case ok && flaw.OfKey && key != nil:
		l.errorf(l.at(key.v), flaw.Mend, "%s %s %s", key.name, quote(key.v.n.Value), flaw.What)
	case ok:
		l.errorf(l.at(f.v), flaw.Mend, "%s %s %s", f.name, quote(f.v.n.Value), flaw.What)
	}
}

// doubtChain warns of a certificate of ours by the one of its chain that ends first.
func (l *loader) doubtChain(f *pemFile, chain []*x509.Certificate, first *x509.Certificate, now time.Time) {
	for _, c := range chain {
		state := stands(c.NotBefore, c.NotAfter, now, allRefused)
		if state == "" {
			continue
		}
		which, mend := "", newCertificate
		if c != first {
			which, mend = ": its issuer "+calls(c), "put the successor of that issuer behind our certificate; the file is read at the next connect"
		}
		l.warnf(l.at(f.v), mend, "%s %s%s %s", f.name, quote(f.v.n.Value), which, state)
		return
	}
}

// wholeList is how many authorities only the list of a system or browser has: in such a list some have always ended, and nobody needs them.
const wholeList = 20

// doubtAuthorities warns of authorities: of which one that is valid is enough, where peers have certificates from it.
func (l *loader) doubtAuthorities(f *pemFile, all []*x509.Certificate, now time.Time) {
	if files.HoldsKey(f.data) {
		l.warnf(l.at(f.v), "take it out", "%s %s holds a private key, too: nothing here needs it, and who has an authority's key can pass for any of its peers", f.name, quote(f.v.n.Value))
	}
	valid, doubtful := map[string]bool{}, []*x509.Certificate{}
	for _, c := range all {
		if stands(c.NotBefore, c.NotAfter, now, "") == "" {
			valid[string(c.RawSubject)] = true
		}
	}
	for _, c := range all {
		if stands(c.NotBefore, c.NotAfter, now, "") != "" && !valid[string(c.RawSubject)] { // else its successor is there
			doubtful = append(doubtful, c)
		}
	}
	ends := func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }
	switch {
	case len(valid) == 0:
		last, which := slices.MaxFunc(all, ends), ""
		if len(all) > 1 {
			which = fmt.Sprintf(": the last of its %d authorities, %s,", len(all), calls(last))
		}
		l.warnf(l.at(f.v), newCertificate, "%s %s%s %s", f.name, quote(f.v.n.Value), which, stands(last.NotBefore, last.NotAfter, now, allRefused))
	case len(doubtful) > 0 && len(all) <= wholeList:
		first := slices.MinFunc(doubtful, ends)
		which := "its authority " + calls(first)
		if len(doubtful) > 1 {
			which = fmt.Sprintf("%d of its %d authorities are not valid now or end within a week; the first, %s,", len(doubtful), len(all), calls(first))
		}
		l.warnf(l.at(f.v), newAuthority, "%s %s: %s %s", f.name, quote(f.v.n.Value), which,
			stands(first.NotBefore, first.NotAfter, now, "peers whose certificate rests on it alone are refused"))
	}
}

func calls(c *x509.Certificate) string {
	return quote(cmp.Or(c.Subject.CommonName, c.Subject.String()))
}

// doubtHeld warns in the same way of certificates that no key of the config names, each file once.
func (l *loader) doubtHeld(device int, d drivers.Driver, said *[]string) {
	h, ok := d.(drivers.Holder)
	if !ok {
		return
	}
	for _, c := range h.Held() {
		state := stands(c.NotBefore, c.NotAfter, time.Now(), allRefused)
		if state == "" || c.Next != "" || slices.Contains(*said, c.Name) {
			continue
		}
		*said = append(*said, c.Name)
		at, _ := l.places[device].field(l, "url")
		l.warnf(at, newCertificate, "%s: our own certificate %s %s", called("device", l.cfg.Devices[device].Name), quote(c.Name), state)
	}
}

const allRefused = "connections are refused"

// stands says what is wrong with a certificate's time, and what comes of it; "" for nothing.
func stands(from, to, now time.Time, refused string) string {
	switch day := to.UTC().Format(time.DateOnly); {
	case now.After(to):
		return fmt.Sprintf("ended on %s: %s from then on", day, refused)
	case now.Before(from):
		return fmt.Sprintf("is not valid before %s, by the clock of this machine: %s until then", from.UTC().Format(time.DateOnly), refused)
	case to.Sub(now) <= endsSoon:
		return fmt.Sprintf("ends on %s: %s from then on", day, refused)
	}
	return ""
}
