package buffer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts the pages it reads: a damaged one makes it panic, fault or recurse for ever, in goroutines
// where nobody can recover. It therefore writes our files and reads only those it has just written. What
// an earlier process or a sealed segment left is read here, by pread, with every number checked; no page
// is mapped, so a backlog costs no memory.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	pageHead    = 16
	elementSize = 16
	branchPage  = 1
	leafPage    = 2
	bucketFlag  = 1
	maxDepth    = 12
	maxOverflow = 1 << 12 // pages of one node
	aheadPages  = 32      // leaves read at once when they lie side by side
)

// pageFile is a bbolt file opened for reading.
type pageFile struct {
	f    *os.File
	hwm  uint64 // pages in use
	root uint64
	torn bool // one of its two meta pages is damaged: the last transaction may be missing
}

// openPages opens a bbolt file. A file that is not one, or is cut short, is errDamaged.
func openPages(path string) (*pageFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p := &pageFile{f: f}
	if err := p.readMeta(); err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("open %q: %w", path, err)
	}
	return p, nil
}

func (p *pageFile) close() {
	if p != nil {
		_ = p.f.Close() // nothing was written
	}
}

// readMeta chooses the valid meta page of the higher transaction.
func (p *pageFile) readMeta() error {
	var buf [2 * pageSize]byte
	if _, err := p.f.ReadAt(buf[:], 0); err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("too short: %w", errDamaged)
		}
		return fmt.Errorf("read meta pages: %w: %w", err, errDamaged)
	}
	var best uint64
	valid := 0
	for i := range 2 {
		m := buf[i*pageSize+pageHead : i*pageSize+pageHead+64]
		sum := fnv.New64a()
		sum.Write(m[:56])
		if binary.NativeEndian.Uint32(m) != boltMagic || binary.NativeEndian.Uint32(m[4:]) != boltVersion ||
			binary.NativeEndian.Uint32(m[8:]) != pageSize || binary.NativeEndian.Uint64(m[56:]) != sum.Sum64() {
			continue
		}
		valid++
		if txid := binary.NativeEndian.Uint64(m[48:]); valid == 1 || txid > best {
			best, p.root, p.hwm = txid, binary.NativeEndian.Uint64(m[16:]), binary.NativeEndian.Uint64(m[40:])
		}
	}
	if valid == 0 {
		return fmt.Errorf("no valid meta page: %w", errDamaged)
	}
	p.torn = valid == 1
	info, err := p.f.Stat()
	if err != nil {
		return err
	}
	if p.hwm < 4 || p.hwm > 1<<40 || p.root >= p.hwm || info.Size() < int64(p.hwm)*pageSize {
		return fmt.Errorf("cut short or of impossible size: %w", errDamaged)
	}
	return nil
}

// page is one node: a page with its overflow.
type page struct {
	data  []byte
	count int
	leaf  bool
}

// parsePage checks the header of a node; data may be longer than it, or too short, which overflow tells.
func parsePage(data []byte, id uint64) (p page, overflow int, err error) {
	if len(data) < pageHead {
		return p, 0, fmt.Errorf("page %d: %w", id, errDamaged)
	}
	flags := binary.NativeEndian.Uint16(data[8:])
	p.count, p.leaf = int(binary.NativeEndian.Uint16(data[10:])), flags == leafPage
	over := binary.NativeEndian.Uint32(data[12:])
	if binary.NativeEndian.Uint64(data) != id || (flags != leafPage && flags != branchPage) || over > maxOverflow {
		return p, 0, fmt.Errorf("page %d: %w", id, errDamaged)
	}
	p.data = data
	return p, int(over), nil
}

// element returns the key and the value of an element of a leaf, or the key and the child of a branch.
func (p *page) element(i int) (key, value []byte, flags uint32, child uint64, ok bool) {
	at := pageHead + i*elementSize
	if i < 0 || i >= p.count || at+elementSize > len(p.data) {
		return nil, nil, 0, 0, false
	}
	e := p.data[at:]
	var pos, ksize, vsize uint64
	if p.leaf {
		flags = binary.NativeEndian.Uint32(e)
		pos, ksize, vsize = uint64(binary.NativeEndian.Uint32(e[4:])), uint64(binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
	} else {
		pos, ksize, child = uint64(binary.NativeEndian.Uint32(e)), uint64(binary.NativeEndian.Uint32(e[4:])), binary.NativeEndian.Uint64(e[8:])
	}
	if pos+ksize+vsize > uint64(len(e)) {
		return nil, nil, 0, 0, false
	}
	return e[pos : pos+ksize : pos+ksize], e[pos+ksize : pos+ksize+vsize : pos+ksize+vsize], flags, child, true
}

// valueOffset returns where the value of a leaf's sound element begins in the page.
func (p *page) valueOffset(i int) int64 {
	at := pageHead + i*elementSize
	e := p.data[at:]
	return int64(at) + int64(binary.NativeEndian.Uint32(e[4:])) + int64(binary.NativeEndian.Uint32(e[8:]))
}

// load reads a node into buf.
func (p *pageFile) load(id uint64, buf []byte) (page, []byte, error) {
	buf, err := p.readPages(id, 1, buf)
	if err != nil {
		return page{}, buf, err
	}
	pg, overflow, err := parsePage(buf, id)
	if err == nil && overflow > 0 {
		if buf, err = p.readPages(id, 1+overflow, buf); err == nil {
			pg.data = buf
		}
	}
	return pg, buf, err
}

func (p *pageFile) readPages(id uint64, n int, buf []byte) ([]byte, error) {
	if id < 2 || id >= p.hwm || uint64(n) > p.hwm-id {
		return buf, fmt.Errorf("page %d of %d: %w", id, p.hwm, errDamaged)
	}
	if size := n * pageSize; cap(buf) < size {
		buf = make([]byte, size)
	} else {
		buf = buf[:size]
	}
	if _, err := p.f.ReadAt(buf, int64(id)*pageSize); err != nil {
		return buf, fmt.Errorf("read page %d: %w: %w", id, err, errDamaged)
	}
	return buf, nil
}

// bucketRoot is where a bucket begins: at a page, or inside its parent's.
type bucketRoot struct {
	id     uint64
	inline []byte
}

// bucket finds a bucket of the file. It returns errEmpty when nothing was ever committed to the file.
func (p *pageFile) bucket(name []byte) (bucketRoot, error) {
	c := pageCursor{file: p, root: bucketRoot{id: p.root}, buckets: true}
	k, v := c.Seek(name)
	if c.err != nil {
		return bucketRoot{}, c.err
	}
	if !bytes.Equal(k, name) {
		if p.hwm == 4 && !p.torn { // as bbolt makes it
			return bucketRoot{}, errEmpty
		}
		return bucketRoot{}, fmt.Errorf("no bucket %q: %w", name, errDamaged)
	}
	if len(v) < 16 {
		return bucketRoot{}, fmt.Errorf("bucket %q: %w", name, errDamaged)
	}
	r := bucketRoot{id: binary.NativeEndian.Uint64(v)}
	if r.id == 0 {
		r.inline = bytes.Clone(v[16:])
	}
	return r, nil
}
