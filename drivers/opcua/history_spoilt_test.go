package opcua

import (
	"errors"
	"strings"
	"testing"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
)

// TestHistorySpoilt: what a server keeps of one tag and cannot say, or says as something else, costs that tag its past: the others have theirs, and the link is good.
func TestHistorySpoilt(t *testing.T) {
	raw := func(kind uint32, b string) func(*ua.HistoryReadResult) {
		return func(r *ua.HistoryReadResult) {
			r.HistoryData = &ua.ExtensionObject{TypeID: ua.NewFourByteExpandedNodeID(0, uint16(kind)), EncodingMask: ua.ExtensionObjectBinary, Value: opcuasim.Raw(b)}
		}
	}
	for want, spoil := range map[string]func(*ua.HistoryReadResult){
		"it ends early":                     raw(id.HistoryData_Encoding_DefaultBinary, "\x02\x00\x00\x00\x01\x06\x01"),
		"in place of history":               raw(id.HistoryEvent_Encoding_DefaultBinary, "\x00\x00\x00\x00"),
		"continuation points of over 64000": func(r *ua.HistoryReadResult) { r.ContinuationPoint = make([]byte, maxPoint+1) },
		"2147483647 elements":               raw(id.HistoryData_Encoding_DefaultBinary, "\xff\xff\xff\x7f"),
	} {
		s := start(t, opcuasim.Options{HistoryPage: 7, SpoilHistory: func(node string, r *ua.HistoryReadResult) {
			if node == "ns=2;s=v1" {
				spoil(r)
			}
		}}, 12)
		for _, v := range variables(12) {
			s.SetHistory(strings.TrimPrefix(v, "ns=2;s="), kept(20))
		}
		got, err := pastOf(t, connect(t, connection(s.Endpoint(), patience, variables(12)...)), 0, 20)
		if !errors.Is(err, drivers.ErrDevice) || !strings.Contains(err.Error(), `the server gives no history of 1 of 12 tags, first "ns=2;s=v1": `) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		for tag := range uint32(12) {
			if n := len(got[tag]); n != 20 && tag != 1 {
				t.Errorf("%s: %d values of tag %d", want, n, tag)
			}
		}
	}
}
