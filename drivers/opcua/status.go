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

// noSuchNode reports whether a status code says that the server has no node of that id.
func noSuchNode(code ua.StatusCode) bool {
	return code == ua.StatusBadNodeIDUnknown || code == ua.StatusBadNodeIDInvalid
}

// maxStatusTexts bounds the cache of reasons; a server that sends more different codes costs allocations.
const maxStatusTexts = 256

// statusTexts keeps the words for the status codes seen, so that a tag which stays bad costs no
// allocation a poll.
type statusTexts map[ua.StatusCode]string

// readMends says what to do about the common status codes of values.
var readMends = map[ua.StatusCode]string{
	ua.StatusBadNodeIDUnknown:               `check the spelling, where case counts, and the namespace; "millrace opcua browse" lists what there is`,
	ua.StatusBadNodeIDInvalid:               "check the spelling; some servers say so of a node that was deleted, too",
	ua.StatusBadNotReadable:                 "see whether the server lets anybody read it",
	ua.StatusBadUserAccessDenied:            "give the user the right to read it, in the server",
	ua.StatusBadNoCommunication:             "look at the server's own link to the machine",
	ua.StatusBadCommunicationError:          "look at the server's own link to the machine",
	ua.StatusBadDeviceFailure:               "look at the machine behind the server",
	ua.StatusBadSensorFailure:               "look at the sensor",
	ua.StatusBadNotConnected:                "look at what the server has it from",
	ua.StatusBadWaitingForInitialData:       "the server has not had it yet from the machine",
	ua.StatusBadOutOfService:                "it is switched off in the server",
	ua.StatusBadHistoryOperationUnsupported: "see whether the server can be told to keep the history of this node",
	ua.StatusBadTooManyMonitoredItems:       `lower the number of tags; with "mode: auto" such a group is polled, if it has no events`,
	ua.StatusBadMonitoredItemIDInvalid:      `write "mode: read" if that stays`,
	ua.StatusUncertainInitialValue:          "the machine has not sent it since the server began",
	ua.StatusUncertainSensorNotAccurate:     "look at the sensor, or at the range of it that is set in the server",
}

// reason returns the code's name and meaning, and what to do about the common ones, for example "BadNotReadable: the access level does not
// allow reading or subscribing to the node; see whether the server lets anybody read it".
func (t statusTexts) reason(code ua.StatusCode) string {
	if s, ok := t[code]; ok {
		return s
	}
	s := statusText(code)
	if mend := readMends[code&0xFFFF0000]; mend != "" {
		s += "; " + mend
	}
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
	if code&0xFFFF0000 == ua.StatusBadSessionClosed { // the specification blames the client, and servers that shut down say it
		text = "the server has closed the session; it may be stopping"
	}
	if text == "" {
		return name
	}
	first, size := utf8.DecodeRuneInString(text)
	return name + ": " + string(unicode.ToLower(first)) + text[size:]
}
