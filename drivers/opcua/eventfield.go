package opcua

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// happened takes the fields of one event and returns the number of its type, 0 for one that is not OPC UA's own, and when it occurred, in µs since 1970,
// 0 where it does not say: see timeOf.
func (f *feed) happened(r *reader, e *happened) (kind uint32, at int64, err error) {
	n := r.Count(1)
	for i := 0; i < n && r.Err == nil; i++ {
		from := r.B
		if r.Variant(0); r.Err != nil || i >= len(eventFields) {
			continue
		}
		v, wrong := fieldOf(i, from[:len(from)-len(r.B)], f.finder.names)
		switch {
		case wrong != "":
			e.lack(i, "is left out: "+wrong)
		case v.Kind == telemetry.KindNone: // the event has no such field
		case !e.set(i, v):
			e.lack(i, "is left out: the server sends it in another type than it has")
		case i == 0:
			kind = e.typeOf(v.Text)
		case i == 2:
			at = saidTime(int64(v.Bits))
		}
	}
	return kind, at, r.Err
}

// lack takes what is not here of a field.
func (e *happened) lack(field int, how string) {
	e.lacks = append(e.lacks, fmt.Sprintf("%s %s", eventFields[field].name(), how))
}

func (f *eventField) name() string {
	if f.path == "" {
		return "the id of the condition"
	}
	return f.path
}

// withheld are the statuses in place of a field that the event has. Any other says that it has none, or not now, such as the state of a limit that is not exceeded
// (BadStateNotActive) or those of a disabled condition (OPC 10000-9, 5.5.2).
var withheld = map[ua.StatusCode]bool{
	ua.StatusBadUserAccessDenied: true, ua.StatusBadSecurityModeInsufficient: true, ua.StatusBadNotReadable: true, ua.StatusBadEncodingError: true,
	ua.StatusBadEncodingLimitsExceeded: true, ua.StatusBadOutOfMemory: true,
}

// fieldOf returns the value of a field, a variant that wire.Reader has passed over; none where there is none, and what is wrong where the server has one and it is not to be had. Its
// text may be as long as a message. names are the server's namespaces, by index, as far as they are known.
func fieldOf(field int, variant []byte, names []string) (v telemetry.Value, wrong string) {
	kind := variant[0]
	r := newReader(variant[1:])
	node := eventFields[field].node
	switch {
	case kind&wire.MaskType == wire.TypeNull:
		return v, ""
	case kind == wire.TypeStatusCode: // OPC 10000-4, 7.22.3: why it cannot be had
		if status := ua.StatusCode(r.U32()); withheld[status&0xFFFF0000] {
			return v, statusText(status)
		}
		return v, ""
	case node && kind == wire.TypeNodeID:
		return telemetry.String(spellLasting(r.NodeID(), names)), ""
	case node && kind == wire.TypeExpandedNodeID:
		return telemetry.String(spellLasting(r.ExpandedNodeID(), names)), ""
	case kind > wire.TypeLocalizedText, node:
		return telemetry.Value{Kind: telemetry.KindArray}, "" // of no field
	}
	v, none := r.number(kind)
	if none != "" {
		v, wrong = r.text(kind)
	}
	return v, wrong
}

// spellLasting spells a node id with the name of its namespace where that is known: a server may number them in another way tomorrow.
func spellLasting(n wire.NodeID, names []string) string {
	if i := int(n.NS); n.Server == 0 && len(n.URI) == 0 && i > 0 && i < len(names) && names[i] != "" && len(names[i]) <= maxURI {
		n.URI = []byte(names[i])
	}
	return spell(n)
}

// typeOf names the type of an event.
func (e *happened) typeOf(text string) (kind uint32) {
	if number, ok := strings.CutPrefix(text, "i="); ok {
		n, _ := strconv.ParseUint(number, 10, 32)
		kind = uint32(n)
		if name := id.Name(kind); name != "" && name != number {
			e.Type = name
		}
	}
	return kind
}

// texts returns where the texts of an event are, by index in eventFields.
func (e *happened) texts() [16]*string {
	return [...]*string{0: &e.Type, 1: &e.Event, 3: &e.Source, 5: &e.Message, 6: &e.Condition, 7: &e.Name, 8: &e.Branch, 11: &e.Comment, 15: &e.Limit}
}

// set takes the value of a field, by its index in eventFields, and reports whether it is of a kind that the field has.
func (e *happened) set(field int, v telemetry.Value) bool {
	texts := e.texts()
	flag := [...]**bool{9: &e.Retain, 10: &e.Enabled, 12: &e.Acked, 13: &e.Confirmed, 14: &e.Active}
	switch {
	case field == 2 && v.Kind == telemetry.KindTime:
		if saidTime(int64(v.Bits)) != 0 {
			e.Time = v.AsTime().Format(time.RFC3339Nano)
		}
	case field == 4 && v.Kind == telemetry.KindUint:
		e.Severity = &v.Bits
	case texts[field] != nil && v.Kind == telemetry.KindString:
		if *texts[field] = v.Text; field >= 6 && v.Text == "i=0" && eventFields[field].node { // none
			*texts[field] = ""
		}
	case field < len(flag) && flag[field] != nil && v.Kind == telemetry.KindBool:
		yes := v.Bits != 0
		*flag[field] = &yes
	default:
		return false
	}
	return true
}

// encode returns an event as JSON of at most maxText bytes: the longest of its texts are cut to what fits, and ids left out.
func (e *happened) encode() ([]byte, error) {
	texts := e.texts()
	var sizes [len(texts)]int
	for i, text := range texts {
		if text != nil {
			sizes[i] = len(*text)
			shorten(i, text, maxText)
		}
	}
	for {
		longest := 0
		for i, text := range texts {
			if text != nil && len(*text) > len(*texts[longest]) {
				longest = i
			}
		}
		all, err := json.Marshal(e)
		over, now := len(all)-maxText, len(*texts[longest])
		if err != nil || over <= 0 || now == 0 {
			e.cut(&sizes)
			return all, err
		}
		shorten(longest, texts[longest], max(now-over, now/2)) // by half at most: another one may be as long, and what is escaped gives more room
	}
}

// shorten cuts the text of a field to so many bytes, at a character; an id goes.
func shorten(field int, text *string, most int) {
	if len(*text) <= most {
		return
	}
	if eventFields[field].id {
		most = 0
	}
	for most > 0 && !utf8.RuneStart((*text)[most]) {
		most--
	}
	*text = (*text)[:most]
}

// cut says which texts are shorter than they were.
func (e *happened) cut(sizes *[16]int) {
	for i, t := range e.texts() {
		switch {
		case t == nil || len(*t) == sizes[i]:
		case *t == "":
			e.lack(i, fmt.Sprintf("is left out: it has %d bytes, and an event has room for %d", sizes[i], maxText))
		default:
			e.lack(i, fmt.Sprintf("is cut after %d of its %d bytes: an event has room for %d", len(*t), sizes[i], maxText))
		}
	}
}

// reading returns an event as a reading. It is uncertain where it may be of another node, and where it is not whole.
func (e *happened) reading(g *group, tag int, at int64) telemetry.Reading {
	text, err := e.encode()
	switch {
	case err != nil:
		return telemetry.BadReading(tag, at, "BUG: "+err.Error())
	case len(text) > maxText:
		return telemetry.BadReading(tag, at, fmt.Sprintf("event of %d bytes is over %d", len(text), maxText))
	}
	r := telemetry.Reading{Tag: uint32(tag), Time: at, Value: telemetry.String(string(text))}
	why := e.lacks
	if doubt := g.doubtOf(tag); doubt != "" {
		why = append([]string{doubt}, why...)
	}
	if len(why) > 0 {
		r.Quality, r.Reason = telemetry.Uncertain, strings.Join(why, "; ")
	}
	return r
}
