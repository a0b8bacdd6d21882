//go:build !linux

package modbussim

import "errors"

func (s *Server) upSerial() error {
	return errors.New("open pseudo-terminal: this system has none that is known here; use rtuovertcp")
}
