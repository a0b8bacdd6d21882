package telemetry

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// The text of a good reading of a tag of events (EventType): one JSON object, which is an event, or says that events come from now on.

// maxEventDepth bounds how deep objects and arrays of an event are nested.
const maxEventDepth = 16

// Subscribed returns whether a text says that events come from now on, as {"subscribed":true} does, and the text that may
// stand with it as "note".
func Subscribed(text string) (note string, ok bool) {
	if !strings.HasPrefix(text, `{"subscribed":true`) { // most are events: they cost no more than this
		return "", false
	}
	var says struct {
		Subscribed bool   `json:"subscribed"`
		Note       string `json:"note"`
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if d.Decode(&says) != nil || !says.Subscribed || d.InputOffset() != int64(len(text)) {
		return "", false
	}
	return says.Note, true
}

// IsEvent reports whether a text is one JSON object of UTF-8, nested at most 16 levels deep: it may come from a damaged store.
func IsEvent(text string) bool {
	return len(text) > 0 && text[0] == '{' && text[len(text)-1] == '}' && isShallow(text) && utf8.ValidString(text) && json.Valid([]byte(text))
}

// isShallow reports whether objects and arrays are nested at most maxEventDepth levels deep.
func isShallow(text string) bool {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxEventDepth {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}
