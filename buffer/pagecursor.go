package buffer

import (
	"bytes"
	"fmt"
	"sort"
)

// cursor walks a bucket in the order of its keys. Keys and values are valid until the next call. A nil
// key is the end, or an error that Err tells.
type cursor interface {
	Seek(key []byte) (k, v []byte)
	Next() (k, v []byte)
	Prev() (k, v []byte)
	Last() (k, v []byte)
	Err() error
}

// pageCursor is the cursor of a file that nobody writes meanwhile. It reads nothing outside the file and ends on
// any damage: depth is bounded, and keys that do not increase are an error.
type pageCursor struct {
	file    *pageFile
	root    bucketRoot
	buckets bool // the values are buckets
	stack   []frame
	err     error
	ahead   []byte // leaves side by side, read at once
	aheadAt uint64
	last    []byte // the key before
}

type frame struct {
	page
	buf []byte
	i   int
}

// reset makes the cursor one of another file or bucket; its memory is kept.
func (c *pageCursor) reset(file *pageFile, root bucketRoot) {
	if c.file != file {
		c.ahead = c.ahead[:0]
	}
	c.file, c.root, c.err, c.stack = file, root, nil, c.stack[:0]
}

// Err returns what stopped the cursor.
func (c *pageCursor) Err() error { return c.err }

func (c *pageCursor) fail(err error) (k, v []byte) {
	c.err, c.stack = err, c.stack[:0]
	return nil, nil
}

// push loads a node as the next level.
func (c *pageCursor) push(id uint64) bool {
	n := len(c.stack)
	if n >= maxDepth {
		c.fail(fmt.Errorf("tree too deep: %w", errDamaged))
		return false
	}
	if n < cap(c.stack) {
		c.stack = c.stack[:n+1]
	} else {
		c.stack = append(c.stack, frame{})
	}
	f := &c.stack[n]
	f.i = 0
	var err error
	switch {
	case n == 0 && c.root.inline != nil:
		f.page, _, err = parsePage(c.root.inline, 0)
	case c.inAhead(id):
		data := c.ahead[int(id-c.aheadAt)*pageSize:]
		var overflow int
		f.page, overflow, err = parsePage(data, id)
		// Only a leaf is done with before the next read ahead, and it may go on behind what was read.
		if size := (1 + overflow) * pageSize; err == nil && (size > len(data) || !f.leaf) {
			f.page, f.buf, err = c.file.load(id, f.buf)
		} else if err == nil {
			f.data = data[:size]
		}
	default:
		f.page, f.buf, err = c.file.load(id, f.buf)
	}
	if err == nil && f.count == 0 && (n > 0 || !f.leaf) {
		err = fmt.Errorf("empty page %d: %w", id, errDamaged)
	}
	if err != nil {
		c.fail(err)
		return false
	}
	return true
}

func (c *pageCursor) inAhead(id uint64) bool {
	return id >= c.aheadAt && id < c.aheadAt+uint64(len(c.ahead)/pageSize)
}

// readAhead reads the leaves that follow in the branch and in the file. A page that cannot be read is
// found again by push.
func (c *pageCursor) readAhead(f *frame) {
	_, _, _, id, ok := f.element(f.i)
	if !ok || c.inAhead(id) {
		return
	}
	end := id + 1
	for i := f.i + 1; ; i++ { // leaves that were written one after the other have ascending numbers
		_, _, _, next, ok := f.element(i)
		if !ok || next < end || next >= id+aheadPages {
			break
		}
		end = next + 1
	}
	ahead, err := c.file.readPages(id, int(end-id), c.ahead)
	if err != nil {
		ahead = ahead[:0]
	}
	c.ahead, c.aheadAt = ahead, id
}

// Seek moves to the first key at or after key.
func (c *pageCursor) Seek(key []byte) (k, v []byte) {
	c.err, c.stack, c.last = nil, c.stack[:0], c.last[:0]
	if !c.push(c.root.id) {
		return nil, nil
	}
	for {
		f := &c.stack[len(c.stack)-1]
		bad := false
		i := sort.Search(f.count, func(i int) bool {
			k, _, _, _, ok := f.element(i)
			bad = bad || !ok
			if f.leaf {
				return bytes.Compare(k, key) >= 0
			}
			return bytes.Compare(k, key) > 0
		})
		if bad {
			return c.fail(fmt.Errorf("page elements: %w", errDamaged))
		}
		f.i = i
		if f.leaf {
			if k, v = c.forward(); k != nil && bytes.Compare(k, key) < 0 {
				return c.fail(fmt.Errorf("keys out of order: %w", errDamaged))
			}
			return k, v
		}
		f.i = max(i-1, 0)
		if !c.descend(f) {
			return nil, nil
		}
	}
}

// descend loads the child that the branch points to.
func (c *pageCursor) descend(f *frame) bool {
	_, _, _, id, ok := f.element(f.i)
	if !ok {
		c.fail(fmt.Errorf("branch page: %w", errDamaged))
		return false
	}
	return c.push(id)
}

// forward returns the current element, or the first one after it when the leaf has ended.
func (c *pageCursor) forward() (k, v []byte) {
	for len(c.stack) > 0 {
		f := &c.stack[len(c.stack)-1]
		switch {
		case f.i >= f.count:
			c.stack = c.stack[:len(c.stack)-1]
			if len(c.stack) > 0 {
				c.stack[len(c.stack)-1].i++
			}
		case f.leaf:
			k, v = c.current()
			if k != nil && len(c.last) > 0 && bytes.Compare(k, c.last) <= 0 {
				return c.fail(fmt.Errorf("keys out of order: %w", errDamaged))
			}
			c.last = append(c.last[:0], k...)
			return k, v
		default:
			c.readAhead(f)
			if !c.descend(f) {
				return nil, nil
			}
		}
	}
	return nil, nil
}

func (c *pageCursor) current() (k, v []byte) {
	f := &c.stack[len(c.stack)-1]
	k, v, flags, _, ok := f.element(f.i)
	if !ok || (flags&bucketFlag != 0) != c.buckets || len(k) == 0 {
		return c.fail(fmt.Errorf("leaf page: %w", errDamaged))
	}
	return k, v
}

// Next moves to the next key.
func (c *pageCursor) Next() (k, v []byte) {
	if len(c.stack) == 0 {
		return nil, nil
	}
	c.stack[len(c.stack)-1].i++
	return c.forward()
}

// Last moves to the last key.
func (c *pageCursor) Last() (k, v []byte) {
	c.err, c.stack, c.last = nil, c.stack[:0], c.last[:0]
	if !c.push(c.root.id) {
		return nil, nil
	}
	return c.back()
}

// back goes down to the last element under the current one.
func (c *pageCursor) back() (k, v []byte) {
	for {
		f := &c.stack[len(c.stack)-1]
		f.i = f.count - 1
		if f.leaf {
			if f.count == 0 {
				return nil, nil
			}
			return c.current()
		}
		if !c.descend(f) {
			return nil, nil
		}
	}
}

// Prev moves to the key before.
func (c *pageCursor) Prev() (k, v []byte) {
	k, v = c.before()
	if k != nil && len(c.last) > 0 && bytes.Compare(k, c.last) >= 0 {
		return c.fail(fmt.Errorf("keys out of order: %w", errDamaged))
	}
	c.last = append(c.last[:0], k...)
	return k, v
}

func (c *pageCursor) before() (k, v []byte) {
	for len(c.stack) > 0 {
		f := &c.stack[len(c.stack)-1]
		if f.i == 0 {
			c.stack = c.stack[:len(c.stack)-1]
			continue
		}
		f.i--
		if f.leaf {
			return c.current()
		}
		if !c.descend(f) {
			return nil, nil
		}
		return c.back()
	}
	return nil, nil
}
