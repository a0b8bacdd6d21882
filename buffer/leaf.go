package buffer

import bolt "go.etcd.io/bbolt"

// bbolt ends a leaf before the first key that goes over the page, but not before the third: a leaf has at
// least two keys, and as many pages as they need. Values are cut into pieces so that leaves end where their
// pages do: two large ones fill one to four pages, small ones the page that the value before has begun.
const (
	around     = elementSize + keySize          // bytes that a piece takes beside its own
	onePage    = pageSize - pageHead - 2*around // bytes of two pieces that fill a page
	pairPages  = 4                              // pages that two pieces fill, at most
	largePiece = (pairPages*pageSize-pageHead)/2 - around
	smallPiece = 652 // six fill a page: small commits share pages well
	minPiece   = 32  // less room than that is left empty
)

// leaf is the leaf that the next piece goes into, as bbolt will cut it. Being wrong costs room and no more.
type leaf struct {
	used   int // bytes, without the page's header
	second int // the size of the next piece, when it is the second of a pair
}

// next says how large the next piece is of a value of which so many bytes are left.
func (l *leaf) next(left int) (n int) {
	room := pageSize - pageHead - l.used - around
	switch {
	case l.second > 0:
		n = l.second
		*l = leaf{}
		return n
	case room < minPiece:
		l.used = 0
		return l.next(left)
	case l.used == 0 && left > onePage+smallPiece: // bbolt leaves the last three keys of a commit together: none of a pair
		pages := min((left-smallPiece)/onePage, pairPages)
		l.second = (pages*pageSize-pageHead)/2 - around
		return l.second
	}
	n = min(left, smallPiece, room)
	l.used += n + around
	return n
}

// put stores a value in pieces under increasing keys. bbolt keeps the slices until the commit, so each key
// is its own; the value must not change before the commit.
func (l *leaf) put(bkt *bolt.Bucket, region byte, seq uint64, typ byte, value []byte) error {
	for chunk := 0; chunk == 0 || len(value) > 0; chunk++ {
		if chunk > 0xffff {
			return ErrTooLarge
		}
		n := l.next(len(value))
		if err := bkt.Put(makeKey(region, seq, typ, chunk), value[:n]); err != nil {
			return err
		}
		value = value[n:]
	}
	return nil
}

// putValue stores a value that is not one of the records' region.
func putValue(bkt *bolt.Bucket, region byte, seq uint64, value []byte) error {
	var l leaf
	return l.put(bkt, region, seq, 0, value)
}
