package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// runServers runs simulated OPC UA servers in the place of Modbus devices: node t0 begins a scan, t1 and t2 hold the
// microsecond of its answer, and every other node holds the scan's number. With a file for their certificate they are secured.
func runServers(n, tags int, floats bool, certificate string, in io.Reader, out io.Writer) error {
	servers := make([]*nodeServer, n)
	first := simReport{}
	var served atomic.Uint64
	options := opcuasim.Options{Served: func(string, any) { served.Add(1) }}
	if err := secure(&options, certificate); err != nil {
		return err
	}
	for i := range servers {
		servers[i] = &nodeServer{floats: floats}
		s, err := opcuasim.New(options)
		if err != nil {
			return err
		}
		for j := range tags {
			s.AddVariable(fmt.Sprintf("t%d", j), servers[i].node(j))
		}
		if err := s.Start(); err != nil {
			return err
		}
		defer s.Close()
		first.Addresses = append(first.Addresses, s.Addr())
	}
	return answer(in, out, first, func() (r simReport) {
		r.Registers = served.Load()
		for _, s := range servers {
			r.Scans = append(r.Scans, s.scan.Load())
		}
		return r
	})
}

// secure gives the servers one certificate and writes it to a file, "" for no security.
func secure(o *opcuasim.Options, file string) (err error) {
	if file == "" {
		return nil
	}
	o.Policies = []string{"http://opcfoundation.org/UA/SecurityPolicy#Basic256Sha256"}
	if o.Identity, err = opcuasim.NewIdentity(2048, nil); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, o.Identity.Certificate, 0o600)
}

type nodeServer struct {
	floats bool
	scan   atomic.Uint64
	at     atomic.Uint32
}

// node returns what a read of node tj gives.
func (s *nodeServer) node(j int) func() any {
	switch j {
	case 0:
		return func() any {
			s.at.Store(uint32(time.Now().UnixMicro()))
			return s.value(s.scan.Add(1))
		}
	case 1:
		return func() any { return s.value(uint64(s.at.Load() >> 16)) }
	case 2:
		return func() any { return s.value(uint64(s.at.Load() & 0xffff)) }
	}
	return func() any { return s.value(s.scan.Load()) }
}

func (s *nodeServer) value(v uint64) any {
	if s.floats {
		return float32(v)
	}
	return uint16(v)
}
