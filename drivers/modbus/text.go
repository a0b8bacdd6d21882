package modbus

import (
	"bytes"
	"encoding/hex"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// codePage is how the bytes of a text become characters.
type codePage uint8

const (
	pageAuto    codePage = iota // UTF-8 where it is valid, else Latin-1: every device's degree sign is right then
	pageUTF8                    // as it is
	pageLatin1                  // ISO 8859-1
	pageWindows                 // Windows-1252
)

var pageNames = [...]string{"auto", "utf-8", "latin-1", "windows-1252"}

func parsePage(text string) (codePage, *mistake) {
	for p, name := range pageNames {
		if strings.EqualFold(text, name) {
			return codePage(p), nil
		}
	}
	return 0, &mistake{"there is no such code page here", "use " + strings.Join(pageNames[:], ", ")}
}

// windows1252 is the characters 0x80 to 0x9f; the others are those of Latin-1.
var windows1252 = [32]rune{0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039, 0x152, 0x8d, 0x17d, 0x8f,
	0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178}

// decode returns the text that bytes mean.
func (p codePage) decode(b []byte) string {
	if p == pageUTF8 || p == pageAuto && utf8.Valid(b) {
		return string(b)
	}
	var s strings.Builder
	for _, c := range b {
		if p == pageWindows && c >= 0x80 && c < 0xa0 {
			s.WriteRune(windows1252[c-0x80])
		} else {
			s.WriteRune(rune(c))
		}
	}
	return s.String()
}

// encode returns the bytes of a text, and whether all its characters have one.
func (p codePage) encode(text string) ([]byte, bool) {
	if p == pageUTF8 || p == pageAuto {
		return []byte(text), true
	}
	var b []byte
	for _, r := range text {
		i := -1
		if p == pageWindows {
			for n, c := range windows1252 {
				if c == r {
					i = n
				}
			}
		}
		switch {
		case i >= 0:
			b = append(b, byte(0x80+i))
		case r < 0x100:
			b = append(b, byte(r))
		default:
			return nil, false
		}
	}
	return b, true
}

// unpad cuts what fills a text up: NULs before it, all from the first NUL after it on, and blanks, NULs and 0xff at its end.
func unpad(p []byte) []byte {
	p = bytes.TrimLeft(p, "\x00")
	if end := bytes.IndexByte(p, 0); end >= 0 {
		p = p[:end]
	}
	for len(p) > 0 && (p[len(p)-1] == ' ' || p[len(p)-1] == 0xff) {
		p = p[:len(p)-1]
	}
	return p
}

// kept is the last text of a tag, with the bytes that it came from: one that did not change is not made again.
type kept struct{ raw, text string }

// text returns the characters of a string, or the hex digits of bytes.
func (g *group) text(o *op, p []byte) string {
	p = p[:(o.arg+1)&^1]
	var swapped [250]byte
	if o.order == orderBADC {
		for i := 0; i < len(p); i += 2 {
			swapped[i], swapped[i+1] = p[i+1], p[i]
		}
		p = swapped[:len(p)]
	}
	p = p[:o.arg]
	if o.kind == kindString {
		p = unpad(p)
	}
	last := &g.texts[o.tag]
	if last.raw == unsafe.String(unsafe.SliceData(p), len(p)) {
		return last.text
	}
	last.raw = string(p)
	switch {
	case o.kind == kindBytes:
		last.text = hex.EncodeToString(p)
	default:
		last.text = g.fields[o.tag].page.decode(p)
	}
	return last.text
}
