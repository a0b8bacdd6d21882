package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"slices"

	"millrace/drivers/files"
)

// kept is a small file beside the store's that outlasts a restart. Before what it holds stands a line with its kind and a checksum; a file that is lost or
// damaged is as none, and whoever keeps it says what that costs.
type kept struct {
	path  string
	kind  string      // such as "learned 1", with its version
	most  int         // bytes
	holds func() bool // whether the directory is this gateway's own now, in which alone it writes; nil = always
}

var errElsewhere = errors.New("another directory stands in the place of the store's")

// The files that a gateway keeps beside the store's. Only one that has had the store open leaves them.
const (
	lossesFile   = "losses.json"
	missingFile  = "missing.json"
	learnedFile  = "learned.json"
	selectedFile = "selected.json"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// read returns what the file holds, nil when there is none.
func (k *kept) read() ([]byte, error) {
	all, err := files.Read(k.path, int64(k.most))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return k.parse(all)
}

func (k *kept) parse(all []byte) ([]byte, error) {
	head, body, _ := bytes.Cut(all, []byte("\n"))
	if string(head) != k.head(body) {
		return nil, errors.New("it is damaged: its checksum is another one")
	}
	return body, nil
}

func (k *kept) head(body []byte) string {
	return fmt.Sprintf("millrace %s %08x", k.kind, crc32.Checksum(body, castagnoli))
}

// room is how many bytes of what it holds the file has.
func (k *kept) room() int { return k.most - len(k.head(nil)) - 1 }

// write puts a new file in the place of the old one.
func (k *kept) write(body []byte) error {
	if k.holds != nil && !k.holds() {
		return errElsewhere
	}
	f, err := os.OpenFile(k.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s\n%s", k.head(body), body)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(k.path+".new", k.path)
	}
	if err != nil {
		_ = os.Remove(k.path + ".new") // a part of it is of no use, and may have taken the disk's last bytes
	}
	return err
}

// encodeWithin returns the entries as a JSON object, one a line in the order of their names, as far as they are so many bytes, and how many were left
// out. The entries are texts only.
func encodeWithin[T any](entries map[string]T, room int) (body []byte, left int) {
	body = []byte("{")
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		key, _ := json.Marshal(name)
		value, _ := json.Marshal(entries[name]) // texts only: it cannot fail
		if len(body)+len(key)+len(value)+len(":,\n}\n") > room {
			left++
			continue
		}
		if len(body) > 1 {
			body = append(body, ",\n"...)
		}
		body = append(append(append(body, key...), ':'), value...)
	}
	return append(body, "}\n"...), left
}
