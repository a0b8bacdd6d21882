package telemetry

import "strings"

// ReasonClass sorts the reasons of bad readings into few classes, for counters: the reasons themselves are a device's own words.
type ReasonClass uint8

// The classes.
const (
	NotConnected ReasonClass = iota // no connection to the device
	NoAnswer                        // the device does not answer in time
	Refused                         // the device answers that it will not: an exception, an access right
	Unknown                         // the device does not know the address
	OtherReason                     // everything else
	reasonClasses
)

// ReasonClasses is the number of classes.
const ReasonClasses = int(reasonClasses)

// String returns the class's word, fit for a label.
func (c ReasonClass) String() string {
	return [...]string{"not_connected", "no_answer", "refused", "unknown_address", "other"}[min(c, OtherReason)]
}

// classWords are looked for in this order: a more exact word stands first.
var classWords = [...]struct {
	class ReasonClass
	words []string
}{
	{Unknown, []string{"illegal data address", "unknown node", "nodeidunknown", "node id", "no such"}},
	{Refused, []string{"exception", "denied", "illegal", "not authori", "rejected", "security"}},
	{NoAnswer, []string{"timeout", "timed out", "deadline", "no answer", "no usable answer", "does not answer", "unavailable"}},
	{NotConnected, []string{"connect", "refused", "reset", "closed", "eof", "broken pipe", "unreachable", "no route", "dial", "down", "descriptor", "has not called", "call of the device has ended"}},
}

// ClassOf returns the class of a bad reading's reason.
func ClassOf(reason string) ReasonClass {
	reason = strings.ToLower(reason[:min(len(reason), 512)])
	for i := range classWords {
		for _, w := range classWords[i].words {
			if strings.Contains(reason, w) {
				return classWords[i].class
			}
		}
	}
	return OtherReason
}
