package opcuasim

import (
	"encoding/binary"
	"math"
	"sort"
	"time"

	"github.com/gopcua/opcua/ua"
)

// past is what the server keeps of a variable, oldest first.
type past struct {
	n    func() int
	at   func(i int) *ua.DataValue
	each bool // subscriptions are told each value, not the one of the moment of each sample only
}

// SetHistory makes the server keep a past of a variable of the first namespace, oldest first; nil ends that. It gives at most
// Options.HistoryPage values of a node in one answer.
func (s *Server) SetHistory(name string, values []*ua.DataValue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := node{s.opts.Namespaces[0], "s=" + name}
	s.past[key] = past{n: func() int { return len(values) }, at: func(i int) *ua.DataValue { return values[i] }}
	if values == nil {
		delete(s.past, key)
	}
}

// AddBeat adds a variable to the first namespace that is one more each time so long has passed by the server's clock, and keeps a past of it since now. It is as if its source told
// the server of each change: a sample that comes late, as on a machine that has no time for it, queues all since the last one.
func (s *Server) AddBeat(name string, every time.Duration) {
	start := s.now()
	beats := func() int { return int(s.now().Sub(start)/every) + 1 }
	at := func(i int) *ua.DataValue { return dataValue(int64(i), start.Add(time.Duration(i)*every)) }
	s.AddVariable(name, func() any { return at(beats() - 1) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past[node{s.opts.Namespaces[0], "s=" + name}] = past{beats, at, true}
}

// between returns what an item's variable was after its last sample and before this one, where each change is told.
func (s *Server) between(i *item, now *ua.DataValue) (all []*ua.DataValue) {
	past := s.past[i.key]
	if !past.each || i.last == nil {
		return nil
	}
	end := past.n()
	at := sort.Search(end, func(n int) bool { return past.at(n).SourceTimestamp.After(i.last.SourceTimestamp) })
	for ; at < end && past.at(at).SourceTimestamp.Before(now.SourceTimestamp); at++ {
		all = append(all, past.at(at))
	}
	return all
}

// Continuations returns how many readings of history clients have begun and neither ended nor released.
func (s *Server) Continuations() int { return int(s.continuations.Load()) }

func (s *Server) historyRead(r *ua.HistoryReadRequest) (ua.Response, ua.StatusCode) {
	details, ok := r.HistoryReadDetails.Value.(*ua.ReadRawModifiedDetails)
	if !ok {
		return nil, ua.StatusBadHistoryOperationUnsupported
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	res := &ua.HistoryReadResponse{}
	for _, n := range r.NodesToRead {
		res.Results = append(res.Results, s.pastOf(n, details, r.ReleaseContinuationPoints))
	}
	return res, ua.StatusOK
}

// pastOf answers for one node. Its continuation point is the index to go on from.
func (s *Server) pastOf(n *ua.HistoryReadValueID, d *ua.ReadRawModifiedDetails, release bool) *ua.HistoryReadResult {
	result := &ua.HistoryReadResult{HistoryData: ua.NewExtensionObject(nil)}
	key, known := s.find(n.NodeID)
	past, kept := s.past[key]
	switch {
	case !known || s.nodes[key] == nil:
		result.StatusCode = ua.StatusBadNodeIDUnknown
		return result
	case !kept:
		result.StatusCode = ua.StatusBadHistoryOperationUnsupported
		return result
	}
	end := past.n()
	at := sort.Search(end, func(i int) bool { return !past.at(i).SourceTimestamp.Before(d.StartTime) })
	if len(n.ContinuationPoint) == 4 {
		s.continuations.Add(-1)
		at = int(min(binary.LittleEndian.Uint32(n.ContinuationPoint), uint32(end)))
	}
	if release {
		return result
	}
	most := int(min(d.NumValuesPerNode, math.MaxInt32))
	if page := s.opts.HistoryPage; page > 0 {
		most = min(most, page)
	}
	if cut := s.opts.HistoryCut; cut > 0 {
		most = min(most, cut)
	}
	data := &ua.HistoryData{}
	for ; at < end && len(data.DataValues) < most && past.at(at).SourceTimestamp.Before(d.EndTime); at++ {
		data.DataValues = append(data.DataValues, past.at(at))
	}
	if at < end && past.at(at).SourceTimestamp.Before(d.EndTime) && most != s.opts.HistoryCut {
		if n := s.opts.HistoryPlaces; n > 0 && s.Continuations() >= n {
			result.StatusCode = ua.StatusBadNoContinuationPoints
			return result
		}
		s.continuations.Add(1)
		result.ContinuationPoint = binary.LittleEndian.AppendUint32(nil, uint32(at))
	}
	result.HistoryData = ua.NewExtensionObject(data)
	if spoil := s.opts.SpoilHistory; spoil != nil {
		spoil(n.NodeID.String(), result)
	}
	return result
}

// Raw is what stands where a structure should, byte by byte: see Options.SpoilHistory.
type Raw []byte

// Encode implements ua.BinaryEncoder.
func (r Raw) Encode() ([]byte, error) { return r, nil }
