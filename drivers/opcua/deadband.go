package opcua

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/telemetry"
)

// A deadband of the server (DataChangeFilter, OPC 10000-4, 7.17.2): what lies within it of the value told last does not cross the link. It is an option of its own and not
// the tag's `deadband`, which shows the latest value all the same, in `values` and at a heartbeat.

const deadbandOption = "server_deadband"

// parseDeadband returns the deadband of a tag, 0 for none.
func (t *tag) parseDeadband(from *telemetry.Tag, subscribing mode, fail func(field, what, mend string)) float64 {
	text := from.Options[deadbandOption]
	if text == "" {
		return 0
	}
	band, err := strconv.ParseFloat(text, 64)
	switch kind := t.want.kind; {
	case err != nil || !(band > 0) || math.IsInf(band, 0):
		fail(deadbandOption, deadbandOption+" "+strconv.Quote(clip(text))+" is not a number above 0", "write for example 0.5: in the node's own units, before scale and offset")
	case subscribing == modeRead:
		fail(deadbandOption, deadbandOption+" is for what the server pushes, and mode is read", "remove one of them")
	case t.event != nil || t.want.part != nil:
		fail(deadbandOption, deadbandOption+" of what is no plain number", "leave it out: it is for tags without field, enum and type: event")
	case kind == telemetry.KindString || kind == telemetry.KindBool || kind == telemetry.KindTime:
		fail(deadbandOption, deadbandOption+" of what is no number", "leave it out")
	default:
		return band
	}
	return 0
}

// bands returns the deadbands of the group's tags that the server is asked for; nil = none.
func (g *group) bands() map[int]float64 {
	var all map[int]float64
	for i := range g.tags {
		if band := g.tags[i].deadband; band > 0 {
			if all == nil {
				all = map[int]float64{}
			}
			all[i] = band
		}
	}
	return all
}

// appendDeadband appends the filter of an item: none, which makes a value news when it or its status differs, or a DataChangeFilter.
func appendDeadband(b []byte, band float64) []byte {
	if band == 0 {
		return append(b, 0, 0, 0)
	}
	b = append(b, 1, 0)
	b = binary.LittleEndian.AppendUint16(b, id.DataChangeFilter_Encoding_DefaultBinary)
	b = binary.LittleEndian.AppendUint32(append(b, 1), 16)
	b = binary.LittleEndian.AppendUint32(b, uint32(ua.DataChangeTriggerStatusValue))
	b = binary.LittleEndian.AppendUint32(b, uint32(ua.DeadbandTypeAbsolute))
	return appendFloat(b, band)
}

// noDeadband reports whether a server has refused an item for its deadband.
func noDeadband(status ua.StatusCode) bool {
	switch status {
	case ua.StatusBadMonitoredItemFilterUnsupported, ua.StatusBadMonitoredItemFilterInvalid, ua.StatusBadFilterNotAllowed, ua.StatusBadDeadbandFilterInvalid:
		return true
	}
	return false
}
