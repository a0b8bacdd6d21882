package web

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"millrace/buffer"
)

// backup sends the store's files as a tar archive, state.db last.
func (c *local) backup(w http.ResponseWriter, r *http.Request) {
	out := tar.NewWriter(&patient{w, http.NewResponseController(w)})
	begun := false
	err := c.g.Buffer().Backup(r.Context(), func(name string, size int64, content io.Reader) error {
		begun = true
		if err := out.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o640}); err != nil {
			return err
		}
		_, err := io.Copy(out, content)
		return err
	})
	if err == nil {
		err = out.Close()
	}
	switch {
	case err == nil:
		c.log.Info("store backed up")
	case begun:
		c.log.Warn("backup ended early", "error", err)
		panic(http.ErrAbortHandler) // whoever reads it must see that
	default:
		fail(w, http.StatusUnprocessableEntity, err)
	}
}

// patient gives the reader time again with each write.
type patient struct {
	http.ResponseWriter
	rc *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.rc.SetWriteDeadline(time.Now().Add(stall))
	return p.ResponseWriter.Write(b)
}

// Backup is Store.Backup.
func (c *Client) Backup(ctx context.Context, file func(name string, size int64, r io.Reader) error) error {
	resp, err := c.ask(ctx, http.MethodGet, "store/backup", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := tar.NewReader(resp.Body)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = file(h.Name, h.Size, in)
		}
		if err != nil {
			return fmt.Errorf("back up the store of %s: %w", c.name, err)
		}
	}
}

func (s *stopped) Backup(ctx context.Context, file func(name string, size int64, r io.Reader) error) error {
	return buffer.BackupDir(ctx, s.dir, file)
}
