package opcua

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gopcua/opcua/ua"
)

// maxIdentifier bounds a text or opaque identifier, in bytes (OPC 10000-3, 8.2.4: 4096 characters).
const maxIdentifier = 4096

// address is a node id as a tag's address says it, for example "ns=2;s=Spindle.Speed"
// (OPC 10000-6, 5.3.1.10), or a browse path: see parsePath. It does not need a server to be read.
type address struct {
	uri    string // namespace URI of "nsu=", "" when the index is given
	text   string // identifier of kinds s (UTF-8), g (16 bytes) and b (bytes); a browse path in canonical form
	number uint32 // identifier of kind i
	ns     uint16 // namespace index of "ns=", 0 when absent or uri is set
	kind   byte   // 'i', 's', 'g', 'b' or byPath
}

const byPath = '/' // the kind of a browse path

// mistake is what is wrong with a text of the config and how to mend it.
type mistake struct{ what, mend string }

// parseAddress reads a node id strictly: nothing is guessed, but the mend says what may have been meant.
func parseAddress(s string) (address, *mistake) {
	switch {
	case s == "":
		return address{}, &mistake{"the node id is empty", `use a node id such as "ns=2;s=Spindle.Speed"`}
	case len(s) > 4*maxIdentifier:
		return address{}, &mistake{fmt.Sprintf("%d bytes are too long for a node id", len(s)), fmt.Sprintf("use at most %d bytes for the identifier", maxIdentifier)}
	case strings.TrimSpace(s) != s:
		return address{}, &mistake{"a space stands before or after the node id", fmt.Sprintf("use %q", strings.TrimSpace(s))}
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		return address{}, &mistake{"the node id is not text", "use UTF-8 without NUL"}
	case len(s) > 3 && !strings.HasPrefix(s, "ns") && strings.EqualFold(s[:2], "ns") && strings.Contains(s[2:4], "="):
		return address{}, &mistake{fmt.Sprintf("%q is not known", s[:strings.Index(s, "=")]), fmt.Sprintf("write %q in small letters", strings.ToLower(s[:strings.Index(s, "=")]))}
	case strings.HasPrefix(s, "svr="):
		return address{}, &mistake{"svr= names another server", "give that server a device of its own"}
	}
	var a address
	if s[0] == '/' {
		steps, m := parsePath(s)
		if a.kind, a.text = byPath, pathText(steps); m == nil && len(a.text) > maxIdentifier {
			m = &mistake{fmt.Sprintf("a browse path of %d bytes is too long", len(a.text)), fmt.Sprintf("use at most %d bytes, or the node id", maxIdentifier)}
		}
		return a, m
	}
	space, rest, found := "", s, false
	if strings.HasPrefix(s, "ns=") || strings.HasPrefix(s, "nsu=") {
		space, rest, found = strings.Cut(s, ";")
		if !found {
			return address{}, &mistake{"no ';' and identifier follow the namespace", `use for example "ns=2;s=Spindle.Speed"`}
		}
		if m := a.parseNamespace(space); m != nil {
			return address{}, m
		}
		space += ";"
	}
	if len(rest) < 2 || rest[1] != '=' || !strings.Contains("isgb", rest[:1]) {
		return address{}, unknownIdentifier(space, rest)
	}
	a.kind = rest[0]
	if m := a.parseIdentifier(rest[2:]); m != nil {
		return address{}, m
	}
	return a, nil
}

func unknownIdentifier(space, rest string) *mistake {
	m := &mistake{what: "no identifier of the form i=, s=, g= or b="}
	switch {
	case strings.HasPrefix(rest, "Objects/"), strings.HasPrefix(rest, "0:Objects/"):
		m.mend = fmt.Sprintf("for a browse path use %q", "/"+rest)
	case space == "" && strings.Contains(strings.Trim(rest, "/"), "/"):
		m.mend = fmt.Sprintf("a browse path begins at the Root folder, and each name has its namespace index, such as %q; for a text identifier use %q", likelyPath(rest), "ns=2;s="+rest)
	case space == "":
		m.mend = fmt.Sprintf("for a text identifier use %q with the server's namespace index", "ns=2;s="+rest)
	case rest == "":
		m.mend = fmt.Sprintf("use for example %q", space+"s=Spindle.Speed")
	default:
		m.mend = fmt.Sprintf("for a text identifier use %q", space+"s="+rest)
	}
	return m
}

// likelyPath is how names with slashes between would stand in a browse path, the first few.
func likelyPath(names string) string {
	const most = 4
	path := "/Objects"
	for i, name := range strings.Split(strings.Trim(names, "/"), "/") {
		if index, _, found := strings.Cut(name, ":"); !found || strings.Trim(index, "0123456789") != "" {
			name = "2:" + name
		}
		if path += "/" + name; i == most {
			break
		}
	}
	return path
}

// astray says of a browse path that it begins with none of the nodes that OPC UA has in the Root folder (OPC 10000-5, 8.2.2), "" of all else.
func (a *address) astray() string {
	steps, m := parsePath(a.text)
	if a.kind != byPath || m != nil || len(steps) == 0 {
		return ""
	}
	if s := steps[0]; s.ns == 0 && s.uri == "" && (s.name == "Objects" || s.name == "Types" || s.name == "Views") {
		return ""
	}
	return fmt.Sprintf("%q begins at the Root folder, which has Objects, Types and Views; is %q meant?", clip(a.text), clip("/Objects"+a.text))
}

func (a *address) parseNamespace(s string) *mistake {
	if uri, ok := strings.CutPrefix(s, "nsu="); ok {
		if a.uri = uriEscapes.Replace(uri); a.uri == "" || len(a.uri) > maxIdentifier {
			return &mistake{"no usable namespace URI after nsu=", `use for example "nsu=http://example.com/machine;s=Spindle.Speed"`}
		}
		return nil
	}
	digits := strings.TrimPrefix(s, "ns=")
	n, err := parseDecimal(digits, 16)
	if err != nil {
		return &mistake{fmt.Sprintf("namespace index %q is not a number from 0 to 65535", digits), `use for example "ns=2", or "nsu=" with the namespace URI`}
	}
	a.ns = uint16(n)
	return nil
}

func (a *address) parseIdentifier(s string) *mistake {
	switch a.kind {
	case 'i':
		n, err := parseDecimal(s, 32)
		if err != nil {
			return &mistake{fmt.Sprintf("numeric identifier %q is not a number from 0 to 4294967295", s), `use for example "ns=2;i=1001", or s= for a text identifier`}
		}
		a.number = uint32(n)
		return nil
	case 's':
		a.text = s
	case 'g':
		b, ok := parseGUID(s)
		if !ok {
			return &mistake{fmt.Sprintf("GUID %q is not 32 hex digits in groups of 8-4-4-4-12", s), `use for example "ns=2;g=09087e75-8e5e-499b-954f-f2a9603db28a"`}
		}
		a.text = string(b)
	case 'b':
		b, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil || strings.ContainsAny(s, "\r\n") {
			return &mistake{fmt.Sprintf("opaque identifier %q is not base64", s), `use for example "ns=2;b=M/RbKBsRVkePCePcx24oRA=="`}
		}
		a.text = string(b)
	}
	if a.text == "" {
		return &mistake{"the identifier is empty", `use for example "ns=2;s=Spindle.Speed"`}
	}
	if len(a.text) > maxIdentifier {
		return &mistake{fmt.Sprintf("an identifier of %d bytes is too long", len(a.text)), fmt.Sprintf("use at most %d bytes", maxIdentifier)}
	}
	return nil
}

// parseDecimal reads digits only: ParseUint would take "+1" and, with base 0, "0x1" and "1_0".
func parseDecimal(s string, bits int) (uint64, error) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 10, bits)
}

func parseGUID(s string) ([]byte, bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return nil, false
	}
	b, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	return b, err == nil
}

// In "nsu=" a ';' or '%' of the URI is written %3B or %25 (OPC 10000-6, 5.1.12).
var (
	uriEscapes = strings.NewReplacer("%3B", ";", "%3b", ";", "%25", "%")
	uriEscaper = strings.NewReplacer(";", "%3B", "%", "%25")
)

// String returns the address in canonical form; parsing it gives the same address.
func (a address) String() string {
	if a.kind == byPath {
		return a.text
	}
	var b strings.Builder
	switch {
	case a.uri != "":
		b.WriteString("nsu=" + uriEscaper.Replace(a.uri) + ";")
	case a.ns != 0:
		fmt.Fprintf(&b, "ns=%d;", a.ns)
	}
	b.WriteByte(a.kind)
	b.WriteByte('=')
	switch a.kind {
	case 'i':
		b.WriteString(strconv.FormatUint(uint64(a.number), 10))
	case 's':
		b.WriteString(a.text)
	case 'g':
		b.WriteString(guidText([]byte(a.text)))
	case 'b':
		b.WriteString(base64.StdEncoding.EncodeToString([]byte(a.text)))
	}
	return b.String()
}

// nodeID returns the library's node id in the namespace of the given index, in the shortest encoding.
func (a address) nodeID(ns uint16) *ua.NodeID {
	switch a.kind {
	case 's':
		return ua.NewStringNodeID(ns, a.text)
	case 'b':
		return ua.NewByteStringNodeID(ns, []byte(a.text))
	case 'g':
		return ua.NewGUIDNodeID(ns, hex.EncodeToString([]byte(a.text)))
	}
	switch {
	case ns == 0 && a.number < 1<<8:
		return ua.NewTwoByteNodeID(uint8(a.number))
	case ns < 1<<8 && a.number < 1<<16:
		return ua.NewFourByteNodeID(uint8(ns), uint16(a.number))
	}
	return ua.NewNumericNodeID(ns, a.number)
}

// encodedSize returns how many bytes the node takes in a Read request, at most; where a browse path leads is not known yet.
func (a address) encodedSize() int {
	const fixed, usualNode = 7 + 4 + 4 + 6, 40 // node id header, attribute, no index range, no encoding
	if a.kind == byPath {
		return fixed + usualNode
	}
	return fixed + max(len(a.text), 4)
}

// guidText returns the usual text form of 16 GUID bytes in network order, in lower case.
func guidText(b []byte) string {
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
