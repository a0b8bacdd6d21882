package importer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// asText returns a file as UTF-8 without a byte order mark, or says why it is no text. Tables that Windows programs write
// may be UTF-16, or in the code page of the machine, which a table does not name.
func asText(b *builder, data []byte, table bool) ([]byte, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		data = fromUTF16(binary.LittleEndian, data[2:])
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		data = fromUTF16(binary.BigEndian, data[2:])
	}
	begin := bytes.TrimSpace(data)
	switch {
	case len(begin) == 0:
		return nil, errors.New("the file is empty; export it again")
	case isWorkbook(data):
		return nil, errors.New("the file is an Excel workbook or another archive; give the text file itself")
	case bytes.IndexByte(data, 0) >= 0:
		return nil, errors.New("the file is binary and no text; export it as text (a project of Kepware: File, Save As, JSON)")
	case begin[0] == '<':
		return nil, errors.New("the file is XML or HTML; export it in the form that is named (a project of Kepware: File, Save As, JSON)")
	case utf8.Valid(data):
		return data, nil
	case !table:
		return nil, errors.New("the file is not UTF-8; save it as UTF-8")
	}
	b.problem("the file", "it is not UTF-8, so Western Windows letters (code page 1252) were taken; compare names and units, and save it as UTF-8 where they are wrong")
	return from1252(data), nil
}

func fromUTF16(order binary.ByteOrder, data []byte) []byte {
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}

// upper1252 are the letters 0x80 to 0x9f of code page 1252; the others are those of Unicode.
var upper1252 = []rune("€\u0081‚ƒ„…†‡ˆ‰Š‹Œ\u008dŽ\u008f\u0090‘’“”•–—˜™š›œ\u009džŸ")

func from1252(data []byte) []byte {
	out := slices.Grow([]byte(nil), len(data)+len(data)/8)
	for _, c := range data {
		r := rune(c)
		if c >= 0x80 && c < 0xa0 {
			r = upper1252[c-0x80]
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}
