package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"
)

// The functions of this file read one value each. They report what is wrong with it and then leave dst as it
// was, so that a default stands in and the rest of the config can still be checked.

// raw returns the text of a scalar as written, with ${...} not yet replaced.
func (l *loader) raw(f field) (string, bool) {
	n := f.v.n
	switch {
	case n.Kind != yaml.ScalarNode:
		mend := "write one value after the colon"
		if n.Style&yaml.FlowStyle != 0 {
			mend += ", with quotes around it if it begins with { or ["
		}
		l.errorf(l.at(f.v), mend, "%s must be a single value, not %s", f.name, kindOf(n))
		return "", false
	case n.Tag == "!!null" && n.Style == 0:
		l.errorf(l.at(f.v), "write a value after the colon or delete the key", "%s has no value", f.name)
		return "", false
	case n.Style&yaml.TaggedStyle != 0 && n.Tag != "!!str":
		l.errorf(l.at(f.v), "write the value without it, or quotes around a text that begins with !", "%s has a YAML type mark, which is not supported", f.name)
		return "", false
	}
	return n.Value, true
}

// text returns a scalar with ${env:...} and ${file:...} replaced. Any scalar is a text: 007 stays 007.
func (l *loader) text(f field) (string, bool) {
	s, ok := l.raw(f)
	if ok && strings.Contains(s, "${") {
		return l.expand(f, s)
	}
	return s, ok
}

// short reads a text of 1 to most bytes without control characters.
func (l *loader) short(f field, dst *string, most int) bool {
	s, ok := l.text(f)
	switch {
	case !ok:
		return false
	case s == "":
		l.errorf(l.at(f.v), "write a text or delete the key", "%s is empty", f.name)
	case len(s) > most:
		l.errorf(l.at(f.v), "shorten it", "%s has %d bytes, more than %d", f.name, len(s), most)
	case strings.ContainsFunc(s, isControl):
		l.errorf(l.at(f.v), "delete it", "%s holds a control character", f.name)
	default:
		*dst = s
		return true
	}
	return false
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xFFFD }

// name reads the name of something. inTopic names stand between the slashes of an MQTT topic.
func (l *loader) name(f field, dst *string, inTopic bool) bool {
	var s string
	if !l.short(f, &s, maxName) {
		return false
	}
	switch {
	case strings.TrimSpace(s) != s:
		l.errorf(l.at(f.v), "delete it", "%s %s begins or ends with a space", f.name, quote(f.v.n.Value))
		return false
	case inTopic && !l.inTopic(f, s):
		return false
	}
	*dst = s
	return true
}

// gapLevel is what the topic of a gap message has in place of a group, see package jsonmsg.
const gapLevel = "_gap"

// inTopic reports whether a text can stand between the slashes of a topic, and what is wrong when it cannot.
func (l *loader) inTopic(f field, s string) bool {
	if strings.ContainsAny(s, "/+#{}") {
		l.errorf(l.at(f.v), "use letters, digits, - and _", "%s %s holds one of / + # { }, which mean something else in a topic", f.name, quote(f.v.n.Value))
		return false
	}
	if s == gapLevel {
		l.errorf(l.at(f.v), "use another name", "%s %s stands in the topic of gap messages: others with it would be taken for those", f.name, quote(f.v.n.Value))
		return false
	}
	return true
}

// secret reads a text that must not show.
func (l *loader) secret(f field, dst *Secret) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	if len(s) > maxCredential {
		l.errorf(l.at(f.v), "use a shorter one", "%s is longer than %d bytes", f.name, maxCredential)
		return false
	}
	l.hide(s)
	*dst = NewSecret(s)
	return true
}

// hide keeps a text out of the messages of drivers.
func (l *loader) hide(s string) {
	// A shorter one would black out half of every message and is no secret.
	if len(s) < 4 || slices.Contains(l.secrets, s) {
		return
	}
	// Longest first: one that begins another must not leave the other's end.
	at, _ := slices.BinarySearchFunc(l.secrets, len(s), func(e string, n int) int { return n - len(e) })
	l.secrets = slices.Insert(l.secrets, at, s)
}

// choice reads one of a few words.
func choice[T ~string](l *loader, f field, dst *T, words ...T) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	list := make([]string, len(words))
	for i, w := range words {
		if list[i] = string(w); list[i] == s {
			*dst = w
			return true
		}
	}
	mend := "use " + orList(list)
	if near := Nearest(s, list); near != "" {
		mend = fmt.Sprintf("did you mean %q?", near)
	}
	l.errorf(l.at(f.v), mend, "unknown %s %s", f.name, quote(f.v.n.Value))
	return false
}

func (l *loader) boolean(f field, dst *bool) bool {
	s, ok := l.text(f)
	switch {
	case !ok:
		return false
	case s != "true" && s != "false":
		l.errorf(l.at(f.v), "use true or false", "%s %s is not true or false", f.name, quote(f.v.n.Value))
		return false
	}
	*dst = s == "true"
	return true
}

func (l *loader) integer(f field, dst *int, least, most int) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		l.errorf(l.at(f.v), fmt.Sprintf("use %d to %d", least, most), "%s %s is not a whole number", f.name, quote(f.v.n.Value))
	} else if n < least || n > most {
		l.errorf(l.at(f.v), fmt.Sprintf("use %d to %d", least, most), "%s %d is out of range", f.name, n)
	} else {
		*dst = n
		return true
	}
	return false
}

// number reads any finite decimal number.
func (l *loader) number(f field, dst *float64) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) || strings.ContainsAny(s, "xX_") {
		mend := "write digits, such as 0.1 or -40"
		if strings.Contains(s, ",") {
			mend = "write a decimal point, not a comma"
		}
		l.errorf(l.at(f.v), mend, "%s %s is not a number", f.name, quote(f.v.n.Value))
		return false
	}
	*dst = x
	return true
}

// duration reads a duration between least and most; zero says whether 0 is allowed as well.
func (l *loader) duration(f field, dst *time.Duration, zero bool, least, most time.Duration) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	d, err := parseDuration(s)
	if err != nil {
		mend := durationHelp
		if _, numeric := strconv.ParseFloat(s, 64); numeric == nil && s[0] != '-' {
			mend = fmt.Sprintf("write %ss or %sms; the units are ms, s, m, h and d", s, s)
		}
		l.errorf(l.at(f.v), mend, "%s %s %s", f.name, quote(f.v.n.Value), err)
		return false
	}
	if d == 0 && zero || d >= least && d <= most {
		*dst = d
		return true
	}
	l.outOfRange(f, zero, d < least, formatDuration(least), formatDuration(most))
	return false
}

// size reads a number of bytes between least and most; zero says whether 0 is allowed as well.
func (l *loader) size(f field, dst *int64, zero bool, least, most int64) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	n, err := parseSize(s)
	if err != nil {
		l.errorf(l.at(f.v), sizeHelp, "%s %s %s", f.name, quote(f.v.n.Value), err)
		return false
	}
	if n == 0 && zero || n >= least && n <= most {
		*dst = n
		return true
	}
	l.outOfRange(f, zero, n < least, formatSize(least), formatSize(most))
	return false
}

func (l *loader) outOfRange(f field, zero, below bool, least, most string) {
	word, mend := "large", fmt.Sprintf("use %s to %s", least, most)
	if below {
		word = "small"
	}
	if zero && least != "0" {
		mend += ", or 0"
	}
	l.errorf(l.at(f.v), mend, "%s %s is too %s", f.name, quote(f.v.n.Value), word)
}

// intern returns the one copy of a word that many tags have in common, so that the others are garbage.
func (l *loader) intern(s string) string {
	if w, ok := l.words[s]; ok {
		return w
	}
	if len(l.words) < 4096 && len(s) <= 64 {
		l.words[s] = s
	}
	return s
}
