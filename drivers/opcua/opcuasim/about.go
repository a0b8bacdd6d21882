package opcuasim

import (
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// About is what the server says of a variable besides its value.
type About struct {
	Description string
	Unit        string  // "" = none
	Low, High   float64 // its range, with a unit

	datatype uint32 // of namespace 0; 0 = that of the value
	own      node   // its data type where that is the server's own
}

// Describe makes the server say the data type, rank, access level and description of a variable of the first namespace.
func (s *Server) Describe(name string, a About) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.about[node{s.opts.Namespaces[0], "s=" + name}] = a
}

// attribute answers for an attribute other than the value; nil for those of which nothing is said.
func (s *Server) attribute(key node, attribute ua.AttributeID, now time.Time) *ua.DataValue {
	switch {
	case attribute == ua.AttributeIDEventNotifier && s.notifiers[key]:
		return dataValue(byte(1), now)
	case attribute == ua.AttributeIDUserExecutable && s.methods[key] != nil:
		return dataValue(true, now)
	}
	if t := s.types[key]; t != nil {
		return t.attribute(s, attribute, now)
	}
	if w := s.writable[key]; w != nil {
		if v := w.attribute(attribute, now); v != nil {
			return v
		}
	}
	about, described := s.about[key]
	if !described || s.nodes[key] == nil {
		return nil
	}
	switch attribute {
	case ua.AttributeIDDescription:
		return dataValue(ua.NewLocalizedText(about.Description), now)
	case ua.AttributeIDAccessLevel, ua.AttributeIDUserAccessLevel:
		return dataValue(s.accessLevel(key), now)
	case ua.AttributeIDDataType:
		if about.own != (node{}) {
			return dataValue(s.nodeID(about.own), now)
		}
	}
	v, err := ua.NewVariant(s.nodes[key]())
	if err != nil {
		return nil
	}
	return (&Writable{Value: v.Value(), DataType: about.datatype}).attribute(attribute, now)
}

func (s *Server) accessLevel(key node) byte {
	level := byte(1)
	if s.writable[key] != nil {
		level |= 2
	}
	if _, kept := s.past[key]; kept {
		level |= 4
	}
	return level
}

// unit is the EngineeringUnits property of a variable, limits its EURange (OPC 10000-8, 5.3.2).
func (a *About) unit() any {
	return ua.NewExtensionObject(&ua.EUInformation{NamespaceURI: "http://www.opcfoundation.org/UA/units/un/cefact", UnitID: -1,
		DisplayName: ua.NewLocalizedText(a.Unit), Description: ua.NewLocalizedText(a.Unit)})
}

func (a *About) limits() any {
	return ua.NewExtensionObject(&ua.Range{Low: a.Low, High: a.High})
}

// referenceTo is the kind of reference from a node of the tree to one below it.
func (p *place) referenceTo(c *place, variable bool) uint32 {
	switch {
	case variable && c.uri == uaURI:
		return id.HasProperty
	case p.at.uri != uaURI:
		return id.HasComponent
	}
	return id.Organizes
}
