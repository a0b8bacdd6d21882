package config

import (
	"errors"
	"fmt"
	"strings"

	"millrace/drivers/files"
)

// expand replaces ${env:NAME} and ${file:path} in a text; $${ stands for ${ itself. What it puts in is taken
// for a secret: messages show the text as written.
func (l *loader) expand(f field, s string) (string, bool) {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, "${")
		if !ok {
			b.WriteString(s)
			return b.String(), true
		}
		if strings.HasSuffix(before, "$") {
			b.WriteString(before + "{")
			s = after
			continue
		}
		word, rest, ok := strings.Cut(after, "}")
		if !ok {
			l.errorf(l.at(f.v), "write ${env:NAME} or ${file:path}, or $${ for the two characters themselves", "%s has ${ without }", f.name)
			return "", false
		}
		text, ok := l.lookup(f, word)
		if !ok {
			return "", false
		}
		b.WriteString(before + text)
		s = rest
	}
}

// lookup returns what stands for ${word}.
func (l *loader) lookup(f field, word string) (string, bool) {
	kind, name, _ := strings.Cut(word, ":")
	switch {
	case kind == "env" && name != "":
		text, ok := l.lookupEnv(name)
		if !ok {
			l.errorf(l.at(f.v), fmt.Sprintf("set it before starting millrace, for example with Environment= or EnvironmentFile= in the systemd unit, or write $${env:%s} for the text itself", name),
				"%s needs the environment variable %q, which is not set", f.name, name)
			return "", false
		}
		l.hide(text)
		return text, true
	case kind == "file" && name != "":
		text, err := readSecret(beside(l.files[f.v.file], name))
		if err != nil {
			l.errorf(l.at(f.v), besideMend, "%s needs the file %s: %s", f.name, quote(name), reason(err))
			return "", false
		}
		l.hide(text)
		return text, true
	}
	l.errorf(l.at(f.v), "write ${env:NAME} or ${file:path}, or $${ for the two characters themselves", "%s has ${ with neither env: nor file: after it", f.name)
	return "", false
}

// besideMend is the mend of a path that leads nowhere.
const besideMend = "check the path and its permissions; it is relative to the folder of this file"

// readSecret returns the text of a small file without the line break at its end.
func readSecret(path string) (string, error) {
	data, err := readRegular(path, maxExpand)
	return strings.TrimRight(string(data), "\r\n"), err
}

// readRegular reads a regular file of at most limit bytes.
func readRegular(path string, limit int64) ([]byte, error) {
	data, err := files.Read(path, limit)
	if errors.Is(err, files.ErrTooLarge) {
		return nil, fmt.Errorf("it is larger than %s", formatSize(limit))
	}
	return data, err
}
