package publisher

import (
	"fmt"

	"millrace/buffer"
	"millrace/gateway/format/jsonmsg"
	"millrace/gateway/record"
)

// encoder turns records into messages. It keeps what is the same for all records of a stream.
type encoder struct {
	format     *jsonmsg.Format
	maxMessage int
	streams    map[*buffer.Stream]*jsonmsg.Stream
	record     record.Record
}

// maxStreams bounds the streams that are remembered.
const maxStreams = 1 << 16

// encode appends the message of a record to dst and returns its topic. An error means that the record can
// never be sent.
func (e *encoder) encode(dst []byte, rec *buffer.Record) (topic string, payload []byte, err error) {
	s, err := e.stream(rec.Stream)
	if err != nil {
		return "", dst, err
	}
	if g := rec.Gap; g != nil {
		gap := jsonmsg.Gap{From: g.From, To: g.To, FirstSeq: g.FirstSeq, LastSeq: g.LastSeq, Count: g.Count, Cause: g.Cause.String()}
		return s.Topic(), s.AppendGap(dst, rec.Seq, rec.Historical, rec.At, &gap), nil
	}
	if err := record.Decode(rec.Payload, &e.record); err != nil {
		return "", dst, fmt.Errorf("decode record %d of %q: %w", rec.Seq, rec.Stream.Account(), err)
	}
	payload, err = s.AppendRecord(dst, rec.Seq, rec.Historical, &e.record)
	if err == nil && e.maxMessage > 0 && len(payload) > e.maxMessage {
		err = fmt.Errorf("message of %d bytes is over the limit of %d", len(payload), e.maxMessage)
	}
	return s.Topic(), payload, err
}

func (e *encoder) stream(of *buffer.Stream) (*jsonmsg.Stream, error) {
	if s := e.streams[of]; s != nil {
		return s, nil
	}
	schema := &record.Schema{Device: of.Account()}
	if dict := of.Dict(); len(dict) > 0 { // gap records belong to the device as a whole
		var err error
		if schema, err = record.ParseSchema(dict); err != nil {
			return nil, fmt.Errorf("read the schema of %q: %w", of.Account(), err)
		}
	}
	s, err := e.format.Stream(schema)
	if err != nil {
		return nil, err
	}
	if len(e.streams) >= maxStreams {
		clear(e.streams)
	}
	e.streams[of] = s
	return s, nil
}
