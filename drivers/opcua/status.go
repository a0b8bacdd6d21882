package opcua

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers/telemetry"
)

// qualityOf maps the severity, the two highest bits of a status code, to a quality
// (OPC 10000-4, 7.39.1). The reserved severity counts as bad.
func qualityOf(code ua.StatusCode) telemetry.Quality {
	switch code >> 30 {
	case 0:
		return telemetry.Good
	case 1:
		return telemetry.Uncertain
	}
	return telemetry.Bad
}

// maxStatusTexts bounds the cache of reasons; a server that sends more different codes costs allocations.
const maxStatusTexts = 256

// statusTexts keeps the words for the status codes seen, so that a tag which stays bad costs no
// allocation a poll.
type statusTexts map[ua.StatusCode]string

// reason returns the code's name and meaning, for example
// "BadNodeIdUnknown: the node id refers to a node that does not exist in the server address space".
func (t statusTexts) reason(code ua.StatusCode) string {
	if s, ok := t[code]; ok {
		return s
	}
	s := statusText(code)
	if len(t) < maxStatusTexts {
		t[code] = s
	}
	return s
}

// statusText spells names as the specification does: the library writes ID, TCP, URI and URL.
func statusText(code ua.StatusCode) string {
	desc, ok := ua.StatusCodes[code&0xFFFF0000] // the low half are flags of the value
	if !ok {
		return fmt.Sprintf("status 0x%08X", uint32(code))
	}
	name := strings.NewReplacer("ID", "Id", "TCP", "Tcp", "URI", "Uri", "URL", "Url").Replace(strings.TrimPrefix(desc.Name, "Status"))
	text := strings.TrimSuffix(desc.Text, ".")
	if text == "" {
		return name
	}
	first, size := utf8.DecodeRuneInString(text)
	return name + ": " + string(unicode.ToLower(first)) + text[size:]
}
