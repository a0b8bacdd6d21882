package config

import "math"

// place remembers where one key's value stands while its node is long gone: 12 bytes, because a plant has
// hundreds of thousands.
type place struct {
	line int32
	key  uint16 // loader.keyID
	col  uint16
	bad  bool // a mistake in it is reported
}

// places are where something and its keys stand.
type places struct {
	at     pos
	faulty bool // a mistake in one of its keys, or a missing key, is reported
	fields []place
}

type devicePlace struct {
	places
	groups []groupPlace
}

type groupPlace struct {
	places
	tagFile   int32 // where tags stand, if not where the group does; 0 = there
	tags      []tagPlace
	tagFields []place // of all tags
}

// tagPlace is a places whose fields are groupPlace.tagFields[first:next tag's first].
type tagPlace struct {
	line, col int32
	first     uint32
	faulty    bool
}

// keyID returns a number for a key.
func (l *loader) keyID(name string) uint16 {
	id, ok := l.keyIDs[name]
	if !ok {
		id = uint16(len(l.keyIDs))
		l.keyIDs[name] = id
	}
	return id
}

func (l *loader) newPlace(f field, ok bool) place {
	at := l.at(f.v)
	return place{line: at.line, col: uint16(min(at.col, math.MaxUint16)), key: l.keyID(f.name), bad: !ok}
}

// note remembers where a key stands.
func (p *places) note(l *loader, f field, ok bool) {
	p.fields = append(p.fields, l.newPlace(f, ok))
}

// addTag remembers where a tag begins and returns its index.
func (p *groupPlace) addTag(at pos) int {
	p.tags = append(p.tags, tagPlace{line: at.line, col: at.col, first: uint32(len(p.tagFields))})
	return len(p.tags) - 1
}

// dropTag forgets the last tag: no driver will name it.
func (p *groupPlace) dropTag() {
	last := len(p.tags) - 1
	p.tagFields = p.tagFields[:p.tags[last].first]
	p.tags = p.tags[:last]
}

// noteTag remembers where a key of the last tag stands.
func (p *groupPlace) noteTag(l *loader, f field, ok bool) {
	p.tagFields = append(p.tagFields, l.newPlace(f, ok))
}

// tag returns where the tag with this index and its keys stand.
func (p *groupPlace) tag(i int) places {
	t := p.tags[i]
	end := uint32(len(p.tagFields))
	if i+1 < len(p.tags) {
		end = p.tags[i+1].first
	}
	file := p.at.file
	if p.tagFile > 0 {
		file = p.tagFile
	}
	return places{at: pos{file, t.line, t.col}, faulty: t.faulty, fields: p.tagFields[t.first:end]}
}

// field returns where a key's value stands, or the whole thing if it has no such key. reported says that the
// config's own checks have found fault with it, or with what lacks it.
func (p *places) field(l *loader, name string) (at pos, reported bool) {
	if at, written, reported := p.key(l, name); written {
		return at, reported
	}
	return p.at, p.faulty
}

// key returns where a key's value stands, if it is written, and whether a mistake in it is reported.
func (p *places) key(l *loader, name string) (at pos, written, reported bool) {
	if id, ok := l.keyIDs[name]; ok {
		for _, f := range p.fields {
			if f.key == id {
				return pos{p.at.file, f.line, int32(f.col)}, true, f.bad
			}
		}
	}
	return pos{}, false, false
}
