package opcua

import (
	"fmt"
	"strconv"
	"strings"
)

// Bounds of a browse path.
const (
	maxSteps = 32   // elements
	maxName  = 2048 // bytes of a browse name (OPC 10000-3, 8.3: 512 characters)
)

// step is one element of a browse path: the browse name of a node right below the one before.
type step struct {
	uri  string // namespace URI of "nsu=", "" when the index is given
	ns   uint16 // namespace index, 0 when absent or uri is set
	name string
}

// reserved are the characters that OPC UA writes as '&' and the character in a name (OPC 10000-4, A.2). A '.' is none of them here: '/'
// leads along every hierarchical reference, and names with dots are common.
const reserved = "/<>:#!&"

var pathEscaper = strings.NewReplacer("/", "&/", "<", "&<", ">", "&>", ":", "&:", "#", "&#", "!", "&!", "&", "&&")

// parsePath reads a browse path from the Root folder such as "/Objects/2:Machine/nsu=urn:m;Speed".
func parsePath(text string) (steps []step, m *mistake) {
	for rest := text; rest != ""; {
		var s step
		if s, rest, m = parseStep(strings.TrimPrefix(rest, "/")); m != nil {
			return nil, &mistake{fmt.Sprintf("element %d of the browse path: %s", len(steps)+1, m.what), m.mend}
		}
		if steps = append(steps, s); len(steps) > maxSteps {
			return nil, &mistake{fmt.Sprintf("the browse path has more than %d elements", maxSteps), "use the node id"}
		}
	}
	return steps, nil
}

// parseStep reads one element and returns what follows it: nothing, or a '/' and more.
func parseStep(text string) (s step, rest string, m *mistake) {
	if uri, ok := strings.CutPrefix(text, "nsu="); ok {
		uri, name, found := strings.Cut(uri, ";")
		if s.uri, text = uriEscapes.Replace(uri), name; !found || s.uri == "" || strings.Contains(uri, "/nsu=") {
			return s, "", &mistake{"no namespace URI, ';' and name follow nsu=", `use for example "/Objects/nsu=http://example.com/machine;Machine"`}
		}
	} else if digits := len(text) - len(strings.TrimLeft(text, "0123456789")); digits > 0 && strings.HasPrefix(text[digits:], ":") {
		n, err := parseDecimal(text[:digits], 16)
		if err != nil {
			return s, "", &mistake{fmt.Sprintf("namespace index %s is not a number from 0 to 65535", clip(text[:digits])), `use for example "/Objects/2:Machine"`}
		}
		s.ns, text = uint16(n), text[digits+1:]
	}
	s.name, rest, m = parseName(text)
	return s, rest, m
}

// parseName reads a browse name up to the next '/'.
func parseName(text string) (name, rest string, m *mistake) {
	var b strings.Builder
	i := 0
	for ; i < len(text) && text[i] != '/'; i++ {
		c := text[i]
		switch {
		case c == '&' && i+1 < len(text) && strings.IndexByte(reserved+".", text[i+1]) >= 0:
			i++
			c = text[i]
		case c == ':':
			return "", "", &mistake{"a ':' stands in a name", `write "&:" for a colon, and "/" between elements, as in "/Objects/2:Machine/2:Speed"`}
		case strings.IndexByte(reserved, c) >= 0:
			return "", "", &mistake{fmt.Sprintf("%q has a meaning of its own in browse paths", string(c)), fmt.Sprintf("write %q for the character itself", "&"+string(c))}
		}
		b.WriteByte(c)
	}
	switch name = b.String(); {
	case name == "":
		return "", "", &mistake{"it has no name", `use for example "/Objects/2:Machine/2:Speed"`}
	case len(name) > maxName:
		return "", "", &mistake{fmt.Sprintf("a name of %d bytes is too long", len(name)), fmt.Sprintf("use at most %d bytes", maxName)}
	}
	return name, text[i:], nil
}

// String returns the element in canonical form.
func (s step) String() string {
	name := pathEscaper.Replace(s.name)
	switch {
	case s.uri != "":
		return "nsu=" + uriEscaper.Replace(s.uri) + ";" + name
	case s.ns != 0 || strings.HasPrefix(name, "nsu="):
		return strconv.Itoa(int(s.ns)) + ":" + name
	}
	return name
}

// pathText returns a browse path in canonical form; parsing it gives the same steps.
func pathText(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString("/" + s.String())
	}
	return b.String()
}
