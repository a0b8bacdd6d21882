package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	yaml "go.yaml.in/yaml/v4"

	"millrace/drivers"
	"millrace/drivers/files"
)

// Options are what Load takes from outside; the zero value is the process's own environment.
type Options struct {
	LookupEnv func(string) (string, bool) // where ${env:NAME} is looked up; nil = os.LookupEnv
}

// Load reads the config file at path and the files that it includes, and checks everything that needs no
// network; each driver of protocols checks its own devices. It returns a config without mistakes, or an
// *Errors with all of them. No secret stands in an error.
func Load(path string, protocols []drivers.Protocol, o Options) (*Config, error) {
	return newLoader(protocols, o).load(path)
}

// StorePath returns buffer.path of the config at path, and what Load says of it. The path is there also when the config
// does not load: `millrace reload` needs it to reach the gateway that runs on an older state of the file. Where the key
// cannot be read it is the default.
func StorePath(path string, protocols []drivers.Protocol, o Options) (string, error) {
	l := newLoader(protocols, o)
	_, err := l.load(path)
	return l.cfg.Buffer.Path, err
}

// PKIPath returns pki.path in the same way.
func PKIPath(path string, protocols []drivers.Protocol, o Options) (string, error) {
	l := newLoader(protocols, o)
	_, err := l.load(path)
	return l.cfg.PKI.Path, err
}

func (l *loader) load(path string) (*Config, error) {
	l.open(path, pos{file: -1}, 0)
	l.tables.top.reset(l, l.cfg) // now that paths have a folder to start at
	for len(l.queue) > 0 && !l.stopped {
		next := l.queue[0]
		l.queue = l.queue[1:]
		l.readFile(next)
	}
	l.finish()
	l.givePKI()
	l.checkWrites()
	l.checkDrivers()
	l.checkListeners()
	l.doubt()
	l.cfg.File = path
	for _, s := range l.files {
		l.cfg.Files = append(l.cfg.Files, s.name)
	}
	if err := l.failure(); err != nil {
		return nil, err
	}
	return l.cfg, nil
}

// loader is one Load at work. The lists beside cfg hold where things stand, for messages; they run parallel
// to the lists in cfg and are garbage after Load.
type loader struct {
	cfg       *Config
	protocols []drivers.Protocol
	lookupEnv func(string) (string, bool)
	tables    tables

	files []*source
	queue []*source          // opened but not read
	total int64              // bytes of all files
	cuts  map[*yaml.Node]cut // of the file being read
	whole bool               // that file must not be cut
	piece int                // bytes of a cut to parse at a time

	set         map[string]pos   // top-level keys that may stand once
	meant       uint64           // keys of tables.top that were read, or misspelt
	names       map[string]pos   // "device x": where it was defined
	places      []devicePlace    // of cfg.Devices
	writes      []places         // of cfg.Writes
	rules       map[writeID]int  // of cfg.Writes, those that are right so far
	calls       map[string][]int // of cfg.Writes, those of methods that are right so far, by device
	listeners   []listener
	noted       map[string]field // keys that are looked at when all is read, such as buffer.path
	clientIDs   []pos            // of cfg.Destinations, as are
	topics      []pos
	words       map[string]string
	keyIDs      map[string]uint16
	optionSets  map[string]map[string]string
	optionKey   []byte
	pems        map[string]*pemFile // of the device that is read, by option
	judged      map[string]error    // files of certificates by what names them: see judgeFile
	secrets     []string            // expanded values, which a driver must not show in its messages
	tags, reads int                 // so far, for their bounds
	mistakes    mistakes
	stopped     bool // a bound was passed: what follows would be noise
	unread      bool // a file could not be read, so what seems to be missing may be there
}

func newLoader(protocols []drivers.Protocol, o Options) *loader {
	cfg := Config{protocols: protocols}
	l := &loader{
		cfg: &cfg, protocols: protocols, lookupEnv: o.LookupEnv, tables: newTables(),
		set: map[string]pos{}, names: map[string]pos{}, words: map[string]string{},
		noted: map[string]field{}, optionSets: map[string]map[string]string{}, keyIDs: map[string]uint16{}, pems: map[string]*pemFile{}, judged: map[string]error{}, piece: cutPiece,
	}
	if l.lookupEnv == nil {
		l.lookupEnv = os.LookupEnv
	}
	return l
}

// source is one config file.
type source struct {
	name  string // as it appears in messages
	info  fs.FileInfo
	depth int // includes between it and the first file
	index int32
}

func (s *source) dir() string { return filepath.Dir(s.name) }

// open puts the file at path on the queue. by is where it is included, file -1 for the first one.
func (l *loader) open(path string, by pos, depth int) {
	s := &source{name: path, depth: depth, index: int32(len(l.files))}
	info, err := os.Stat(path)
	mend := "check the path"
	if by.file < 0 {
		mend = "check the path, which --config FILE gives"
		l.files = append(l.files, s) // first, because messages need its name
		by = pos{}
	}
	l.unread = l.unread || err != nil || info.IsDir()
	switch {
	case err != nil:
		l.errorf(by, mend, "read config %q: %s", path, reason(err))
		return
	case info.IsDir():
		l.errorf(by, "name a file", "read config %q: it is a directory", path)
		return
	case !info.Mode().IsRegular():
		l.unread = true
		l.errorf(by, "name a file", "read config %q: %s", path, files.ErrNotRegular)
		return
	}
	for _, other := range l.files {
		if other.info != nil && os.SameFile(other.info, info) {
			l.errorf(by, "include each file once", "file %q is already read%s", path, as(other.name, path))
			return
		}
	}
	s.info = info
	if s.index > 0 {
		l.files = append(l.files, s)
	}
	l.queue = append(l.queue, s)
}

// as says under which name a file is known already.
func as(known, path string) string {
	if known == path {
		return ""
	}
	return fmt.Sprintf(" as %q", known)
}

// reason is the cause in an error of package os without the path, which the message has already.
func reason(err error) string {
	var pe *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "it does not exist"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	case errors.As(err, &pe):
		err = pe.Err
	}
	return err.Error()
}

func (l *loader) readFile(s *source) {
	data, err := files.Read(s.name, maxFile)
	l.total += int64(len(data))
	at := pos{file: s.index}
	l.unread = l.unread || err != nil
	switch {
	case errors.Is(err, files.ErrTooLarge):
		l.errorf(at, "split it with include", "the file is larger than %s", formatSize(maxFile))
		return
	case err != nil:
		l.errorf(at, "check the path and its permissions", "read config: %s", reason(err))
		return
	case l.total > maxTotal:
		l.errorf(at, "run a second gateway for some of the devices", "the files together are larger than %s", formatSize(maxTotal))
		l.stopped = true
		return
	}
	root, ok := l.parse(s, data)
	if ok {
		l.readRoot(root)
	}
	l.cuts = nil
}

// include queues what one entry of `include:` names: a file, a directory or a glob.
func (l *loader) include(f field) {
	by := l.at(f.v)
	s := l.files[f.v.file]
	name, ok := l.text(f)
	if !ok {
		return
	}
	if s.depth >= maxDepth {
		l.errorf(by, "include the files from the first one", "includes are nested more than %d deep", maxDepth)
		return
	}
	path := beside(s, name)
	paths, problem := filesAt(path)
	if problem != "" {
		l.unread = true
		l.errorf(by, "check the path; it is relative to the folder of the file that includes it", "include %s: %s", quote(f.v.n.Value), problem)
		return
	}
	for _, p := range paths {
		if len(l.files) >= maxFiles {
			l.errorf(by, "put more devices into each file", "more than %d files are included", maxFiles)
			l.stopped = true
			return
		}
		l.open(p, by, s.depth+1)
	}
}

// beside returns name as seen from the folder of s.
func beside(s *source, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(s.dir(), name)
}

// filesAt returns the files that a path, directory or glob stands for, in order. A directory may be empty
// (nothing is installed yet); a glob must match.
func filesAt(path string) (paths []string, problem string) {
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.IsDir():
		return []string{path}, ""
	case err == nil:
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, reason(err)
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext == ".yaml" || ext == ".yml" {
				paths = append(paths, filepath.Join(path, e.Name()))
			}
		}
		return paths, ""
	}
	if paths, gerr := filepath.Glob(path); gerr != nil {
		return nil, fmt.Sprintf("bad pattern: %s", gerr)
	} else if len(paths) > 0 {
		slices.Sort(paths)
		return paths, ""
	}
	if slices.ContainsFunc([]rune(path), func(r rune) bool { return r == '*' || r == '?' || r == '[' }) {
		return nil, "no file matches"
	}
	return nil, reason(err)
}
