package files

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
)

// BOM is what some editors put before a text in UTF-8. Of files that were joined it stands in the middle.
const BOM = "\ufeff"

// part is what a line "-----BEGIN …" begins, up to its end, or the next one.
type part struct {
	kind string // "CERTIFICATE"
	line int    // from 1
	text []byte
}

const (
	begins = "-----BEGIN "
	ends   = "-----END "
)

// strays are the first lines that look like one of a certificate and of a key, and are none. nil = there is no such line.
type strays struct{ ofCertificate, ofKey *Flaw }

// oneLineEnd makes the ends of lines of every system one, and takes marks of UTF-8 out.
var oneLineEnd = strings.NewReplacer(BOM, "", "\r\n", "\n", "\r", "\n")

// parts returns those of a PEM file, without what stands before and behind their lines, and what a person takes for one of them and encoding/pem
// would pass over in silence. A line that ends one and begins the next counts as two. One that a person has made a comment with # is passed over.
func parts(b []byte) (all []part, s strays) {
	number, inside, text := 0, false, oneLineEnd.Replace(string(b))
	for rest := range strings.Lines(text) {
		number++
		if !inside && strings.HasPrefix(rest, "#") {
			continue
		}
		for rest != "" {
			var line string
			line, rest = cutEnd(strings.TrimSpace(rest))
			if kind, ok := strings.CutPrefix(line, begins); ok {
				kind, _, _ = strings.Cut(kind, "-----")
				all, inside = append(all, part{kind: kind, line: number}), true
			}
			s.note(line, number, inside, len(all) > 0)
			if inside {
				p := &all[len(all)-1]
				p.text = append(append(p.text, line...), '\n')
			}
			inside = inside && !strings.HasPrefix(line, ends)
		}
	}
	s.noteCut(text)
	return all, s
}

// cutEnd returns a line that ends a part, and what stands behind that in the line.
func cutEnd(line string) (end, behind string) {
	kind, ok := strings.CutPrefix(line, ends)
	if name, more, found := strings.Cut(kind, "-----"); ok && found {
		return line[:len(ends)+len(name)+len("-----")], strings.TrimSpace(more)
	}
	return line, ""
}

const dash = `[-\x{2010}-\x{2015}\x{2212}]` // of a keyboard, and what editors make of it

var (
	// border is how the begin or end of a part looks to a person.
	border = regexp.MustCompile(`(?i)` + dash + `\s*(BEGIN|END)\s+((?:(?:X509|TRUSTED|RSA|EC|ENCRYPTED)\s+)?(?:CERTIFICATE|PRIVATE\s+KEY))\s*` + dash)
	// exact is how it is one.
	exact = regexp.MustCompile(`^-----(BEGIN|END) (X509 |TRUSTED |RSA |EC |ENCRYPTED )?(CERTIFICATE|PRIVATE KEY)-----`)
	// body is a line of a part, of the usual length or longer; digests in hex are none.
	body   = regexp.MustCompile(`^[A-Za-z0-9+/]{64,}={0,2}$`)
	digits = regexp.MustCompile(`^[0-9a-fA-F]+$`)
)

// noteCut takes a text whose last line stops within the begin of a certificate or key: the rest of the file is missing. Five dashes are that only
// where nothing ends their line.
func (s *strays) noteCut(text string) {
	before, last := "", strings.TrimRight(text, "\n\t ")
	if i := strings.LastIndexByte(last, '\n') + 1; i > 0 {
		before, last = last[:i], strings.TrimSpace(last[i:])
	}
	kind, named := strings.CutPrefix(last, begins)
	if named && !strings.Contains(kind, "-----") || strings.HasPrefix(begins, last) && (len(last) > len("-----") || last != "" && strings.HasSuffix(text, last)) {
		flaw := Flaw{What: fmt.Sprintf("ends in line %d within the begin of what is missing", strings.Count(before, "\n")+1), Mend: copyAgain}
		ofKey := flaw
		ofKey.OfKey = true
		s.ofCertificate, s.ofKey = cmp.Or(s.ofCertificate, &flaw), cmp.Or(s.ofKey, &ofKey)
	}
}

// note takes a line that looks like one of a certificate or key and is none. inside: it stands in a part; some: there is one before it or here.
func (s *strays) note(line string, number int, inside, some bool) {
	m := border.FindStringSubmatch(line)
	switch {
	case m != nil && (!exact.MatchString(line) || !inside):
		flaw := brokenBorder(number, strings.ToUpper(m[1]), strings.ToUpper(m[2]), exact.MatchString(line))
		s.ofCertificate, s.ofKey = s.first(flaw)
	case s.ofCertificate != nil || inside:
	case some && strings.ContainsRune(line, 0):
		s.ofCertificate = &Flaw{What: fmt.Sprintf("is not text in line %d (UTF-16 or DER behind PEM?)", number), Mend: "save each certificate as PEM in UTF-8 before they are joined"}
	case s.ofKey == nil && body.MatchString(line) && !digits.MatchString(line):
		s.ofCertificate = &Flaw{What: fmt.Sprintf("has in line %d what looks like the content of a certificate, with no -----BEGIN CERTIFICATE----- before it", number),
			Mend: "put that line before it, and -----END CERTIFICATE----- behind it, or take it out"}
	}
}

func (s *strays) first(flaw *Flaw) (ofCertificate, ofKey *Flaw) {
	if flaw.OfKey {
		return s.ofCertificate, cmp.Or(s.ofKey, flaw)
	}
	return cmp.Or(s.ofCertificate, flaw), s.ofKey
}

// brokenBorder is said of a line with a word, BEGIN or END, and a kind; alone: it is exact, and an end without a begin.
func brokenBorder(number int, word, kind string, alone bool) *Flaw {
	name, what := "CERTIFICATE", "what looks like the %s of a %s and is none"
	if strings.HasSuffix(kind, "KEY") {
		name = "PRIVATE KEY"
	}
	if alone {
		what = "the %s of a %s without its begin"
	}
	return &Flaw{OfKey: name != "CERTIFICATE", What: fmt.Sprintf("has in line %d "+what, number, strings.ToLower(word), strings.ToLower(name)),
		Mend: fmt.Sprintf("the lines around it must be -----BEGIN %s----- and -----END %s----- with nothing else in them; correct them, or take it out", name, name)}
}
