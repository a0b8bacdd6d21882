package modbustool

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// scanLog is the file of a scan: a line of JSON for the scan, then one for each piece as it is done. The zero value keeps
// nothing.
type scanLog struct{ *os.File }

const (
	maxLog     = 64 << 20 // bytes of a file that is read
	maxLogLine = 64 << 10
)

// logHead is the first line: a file is gone on with only by the same scan.
type logHead struct {
	Scan  string `json:"scan"` // url
	From  int    `json:"from"`
	To    int    `json:"to"`
	Block int    `json:"block"`
	Fine  int    `json:"fine"`
}

// logLine is one piece.
type logLine struct {
	Unit  byte   `json:"unit"`
	Table string `json:"table,omitempty"` // "" = the unit itself
	First int    `json:"first"`
	found
}

// resume opens the file, if there is to be one, and takes what it knows.
func (s *scanner) resume() error {
	f := s.flags
	if f.out == "" {
		return nil
	}
	file, err := os.OpenFile(f.out, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	s.log = scanLog{file}
	head := logHead{Scan: s.url, From: f.from, To: f.to, Block: f.block, Fine: f.fine}
	whole, err := s.load(io.LimitReader(file, maxLog), head)
	if err == nil {
		err = file.Truncate(whole) // a line that a crash cut short is done again
	}
	if err == nil {
		_, err = file.Seek(whole, io.SeekStart)
	}
	if err == nil && whole == 0 {
		err = s.log.line(head)
	}
	if err != nil {
		file.Close()
		return fmt.Errorf("scan file %q: %w", f.out, err)
	}
	if n := len(s.done); n > 0 {
		fmt.Fprintf(s.progress, "%d pieces are known from %q\n", n, f.out)
	}
	return nil
}

// load reads a file and returns the length of its whole lines.
func (s *scanner) load(r io.Reader, want logHead) (whole int64, err error) {
	in := bufio.NewReaderSize(r, maxLogLine)
	for n := 0; ; n++ {
		b, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return whole, nil // what is left has no end
		}
		if err != nil {
			return 0, fmt.Errorf("line %d: %w", n+1, err)
		}
		if n == 0 {
			var head logHead
			if err := json.Unmarshal(b, &head); err != nil || head.Scan == "" {
				return 0, errors.New("it is not the file of a scan; name another one")
			}
			if head != want {
				return 0, fmt.Errorf("it is of another scan (%s, addresses %d to %d, blocks of %d, fine %d); name another file", head.Scan, head.From, head.To, head.Block, head.Fine)
			}
		} else if err := s.known(b); err != nil {
			return 0, fmt.Errorf("line %d: %w", n+1, err)
		}
		whole += int64(len(b))
	}
}

func (s *scanner) known(b []byte) error {
	var l logLine
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	p := piece{unit: l.Unit, first: l.First}
	if l.Table != "" {
		p.table = byte(slices.Index(tableNames[1:], l.Table) + 1)
		if p.table == 0 {
			return fmt.Errorf("there is no table %q", l.Table)
		}
	}
	for _, r := range slices.Concat(l.Read, l.Left) {
		if r[0] < 0 || r[1] > 65535 || r[0] > r[1] {
			return fmt.Errorf("%d to %d is no range", r[0], r[1])
		}
	}
	s.done[p] = l.found
	return nil
}

// add keeps a piece.
func (l scanLog) add(p piece, f found) error {
	return l.line(logLine{Unit: p.unit, Table: tableNames[p.table], First: p.first, found: f})
}

func (l scanLog) line(v any) error {
	if l.File == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err == nil {
		_, err = l.Write(append(b, '\n'))
	}
	return err
}

// Close closes the file.
func (l scanLog) Close() error {
	if l.File == nil {
		return nil
	}
	return l.File.Close()
}
