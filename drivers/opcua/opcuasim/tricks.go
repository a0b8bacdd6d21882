package opcuasim

import (
	"bytes"
	"encoding/binary"
	"io"
	"time"
)

// Tricks returns everything wrong that a server has been thought to do. Some of it would have a careless
// client allocate gigabytes, recurse without end, or wait for ever.
func Tricks() []Trick {
	var all []Trick
	for _, list := range [][]Trick{helloTricks(), openTricks(), offerTricks(), sessionTricks(), chunkTricks(), readTricks(), valueTricks(), silences()} {
		all = append(all, list...)
	}
	return all
}

// say writes bytes in place of an answer and leaves the connection open.
func say(name string, step Step, spoil func(a Answer) []byte) Trick {
	return Trick{Name: name, Step: step, Play: func(w io.Writer, a Answer) bool {
		_, err := w.Write(spoil(a))
		return err == nil
	}}
}

// body replaces the body of an answer, in a chunk that is right.
func body(name string, step Step, spoilt func(a Answer) []byte) Trick {
	return say(name, step, func(a Answer) []byte {
		a.Body = spoilt(a)
		return a.Bytes()
	})
}

// endless writes the same chunk until the client has had enough.
func endless(name string, step Step, chunk func(a Answer) []byte) Trick {
	return Trick{Name: name, Step: step, Play: func(w io.Writer, a Answer) bool {
		b := chunk(a)
		for i := uint32(0); ; i++ {
			if string(b[:3]) == "MSG" {
				binary.LittleEndian.PutUint32(b[16:], a.Sequence+i)
			}
			if _, err := w.Write(b); err != nil {
				return false
			}
		}
	}}
}

// behind writes chunks that make up all that an answer may have, and then another.
func behind(name string, last func(a Answer, n int) []byte) Trick {
	return Trick{Name: name, Step: StepPoll, Play: func(w io.Writer, a Answer) bool {
		const chunks = (2 << 20) / (65535 - 24)
		for n := range chunks {
			w.Write(a.Chunk('C', n, make([]byte, 65535-24)))
		}
		_, err := w.Write(last(a, chunks))
		return err == nil
	}}
}

func helloTricks() []Trick {
	ack := func(name string, v ...uint32) Trick {
		return say("ack: "+name, StepHello, func(Answer) []byte { return Frame("ACKF", words(v...)) })
	}
	size := func(name, kind string, n uint32) Trick {
		return say("ack: "+name, StepHello, func(Answer) []byte { return join([]byte(kind), words(n), make([]byte, 32)) })
	}
	return []Trick{
		ack("buffers of 4 GB", 0, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff),
		ack("buffers of 0", 0, 0, 0, 0, 0),
		ack("messages of 1 byte", 0, 65535, 65535, 1, 1),
		ack("too short", 0, 65535),
		size("chunk of 4 GB", "ACKF", 0xffffffff),
		size("chunk of 2 GB", "ACKF", 0x80000000),
		size("chunk below its header", "ACKF", 7),
		size("chunk of 0", "ACKF", 0),
		size("unknown kind", "XYZF", 28),
		say("ack: an error", StepHello, func(Answer) []byte { return Frame("ERRF", join(words(0x80AC0000), text("no"))) }),
		say("ack: an error without a code", StepHello, func(Answer) []byte { return Frame("ERRF", nil) }),
		say("ack: an error of 4 GB of words", StepHello, func(Answer) []byte { return Frame("ERRF", words(0x80AC0000, 0xfffffff0)) }),
		say("ack: an error that is no error", StepHello, func(Answer) []byte { return Frame("ERRF", join(words(0), null)) }),
	}
}

func openTricks() []Trick {
	lifetime := func(name string, ms uint32) Trick {
		return body("open: lifetime "+name, StepOpen, func(Answer) []byte { return OpenBody(ms) })
	}
	security := func(name string, head []byte) Trick {
		return say("open: "+name, StepOpen, func(a Answer) []byte {
			return Frame("OPNF", join(words(hostileChannel), head, words(a.Sequence, a.Request), a.Body))
		})
	}
	return []Trick{
		lifetime("0", 0),
		lifetime("1 ms", 1),
		lifetime("49 days", 0xffffffff),
		security("policy of 4 GB", words(0xfffffff0)),
		security("policy of a negative length", join(words(0xfffffffe), null, null)),
		security("another policy", join(text("http://opcfoundation.org/UA/SecurityPolicy#Basic256Sha256"), text("no certificate"), text("none"))),
		security("no policy at all", join(null, null, null)),
		body("open: channel 0", StepOpen, func(a Answer) []byte {
			return join(a.Body[:len(ResponseHead(449, 0))], words(0, 0, hostileToken), make([]byte, 8), words(1000), null)
		}),
		body("open: nonce of 2 GB", StepOpen, func(a Answer) []byte { return join(a.Body[:len(a.Body)-4], words(0x7fffffff)) }),
		body("open: nonce of a negative length", StepOpen, func(a Answer) []byte { return join(a.Body[:len(a.Body)-4], words(0xfffffffe)) }),
		body("open: a fault", StepOpen, func(Answer) []byte { return ResponseHead(397, 0x80060000) }),
		body("open: another service's response", StepOpen, func(Answer) []byte { return CreateSessionBody() }),
		say("open: as MSG", StepOpen, func(a Answer) []byte { a.Kind = "MSG"; return a.Bytes() }),
	}
}

func offerTricks() []Trick {
	head := len(ResponseHead(431, 0))
	offers := func(name string, of func(one []byte) []byte) Trick {
		return body("endpoints: "+name, StepOffers, func(a Answer) []byte { return join(a.Body[:head], of(a.Body[head+4:])) })
	}
	other := func(name, from, to string) Trick {
		return offers(name, func(one []byte) []byte { return join(words(1), bytes.Replace(one, text(from), text(to), 1)) })
	}
	return []Trick{
		offers("none", func([]byte) []byte { return null }),
		offers("100 M", func([]byte) []byte { return words(100_000_000) }),
		offers("below 0", func([]byte) []byte { return words(0xfffffffe) }),
		offers("10,000, the same", func(one []byte) []byte { return join(words(10_000), bytes.Repeat(one, 10_000)[:60_000]) }),
		offers("300, the same", func(one []byte) []byte { return join(words(300), bytes.Repeat(one, 300)) }),
		offers("100 M ways to log in", func(one []byte) []byte {
			at := bytes.Index(one, text("anyone")) - 4
			return join(words(1), one[:at], words(100_000_000))
		}),
		other("an unknown policy", noPolicy, "urn:x"),
		other("a secured policy without a certificate", noPolicy, "http://opcfoundation.org/UA/SecurityPolicy#Basic256Sha256"),
		other("another transport", "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary", "http://opcfoundation.org/UA-Profile/Transport/https-uabinary"),
		body("endpoints: a fault", StepOffers, func(Answer) []byte { return ResponseHead(397, 0x80060000) }),
		body("endpoints: another service's response", StepOffers, func(Answer) []byte { return CreateSessionBody() }),
	}
}

func sessionTricks() []Trick {
	spoil := func(name string, at int, with []byte) Trick {
		return body("create: "+name, StepCreate, func(a Answer) []byte { return join(a.Body[:at], with) })
	}
	head := len(ResponseHead(464, 0))
	sessionEnd := head + 2 + 23 + 8 + 9 // ids, timeout, nonce
	deepExtension := join(make([]byte, 0), ResponseHead(464, 0)[:head-7], null, []byte{1, 0, 0xff, 0xff, 1}, words(0xfffffff0))
	return []Trick{
		spoil("token of an unknown kind", head+2, bytes.Repeat([]byte{0x0f}, 300)),
		spoil("token of 2 GB", head+2, join([]byte{5, 1, 0}, words(0x7fffffff))),
		spoil("token of 64 KB", head+2, join([]byte{5, 1, 0}, words(60000), make([]byte, 60000), CreateSessionBody()[head+2+23:])),
		spoil("timeout not a number", head+2+23, join([]byte{0, 0, 0, 0, 0, 0, 0xf8, 0x7f}, CreateSessionBody()[head+2+23+8:])),
		spoil("certificate of 2 GB", sessionEnd, words(0x7fffffff)),
		spoil("100 M endpoints", sessionEnd+4, words(100_000_000)),
		spoil("endpoints below 0", sessionEnd+4, words(0xfffffffe)),
		spoil("60,000 empty endpoints", sessionEnd+4, join(words(1000), make([]byte, 60_000))),
		body("create: string table of 100 M", StepCreate, func(a Answer) []byte { return join(a.Body[:head-7], words(100_000_000), a.Body[head-3:]) }),
		body("create: extension of 4 GB in the header", StepCreate, func(Answer) []byte { return deepExtension }),
		body("activate: nonce of a negative length", StepActivate, func(Answer) []byte { return join(ResponseHead(470, 0), words(0x80000000)) }),
		body("activate: a fault without an error", StepActivate, func(Answer) []byte { return ResponseHead(397, 0) }),
	}
}

func chunkTricks() []Trick {
	header := func(name string, at int, v uint32) Trick {
		return say("chunk: "+name, StepPoll, func(a Answer) []byte {
			b := a.Bytes()
			binary.LittleEndian.PutUint32(b[at:], v)
			return b
		})
	}
	kind := func(name, kind string) Trick {
		return say("chunk: "+name, StepPoll, func(a Answer) []byte { return append([]byte(kind), a.Bytes()[4:]...) })
	}
	abort := func(code uint32) func(a Answer) []byte {
		return func(a Answer) []byte { return a.Chunk('A', 0, join(words(code), text("no"))) }
	}
	return []Trick{
		header("size 4 GB", 4, 0xffffffff), header("size 65,536", 4, 65536), header("size 0", 4, 0), header("size 7", 4, 7),
		header("size 8", 4, 8), header("size 23", 4, 23),
		header("another channel", 8, 99), header("another token", 12, 99), header("sequence number backwards", 16, 1),
		header("sequence number ahead", 16, 1<<30), header("another request", 20, 4711), header("request 0", 20, 0),
		kind("unknown type", "XYZF"), kind("unknown kind", "MSGX"), kind("an ACK", "ACKF"), kind("a HEL", "HELF"), kind("a CLO", "CLOF"),
		say("chunk: an error", StepPoll, func(Answer) []byte { return Frame("ERRF", join(words(0x80220000), text("gone"))) }),
		say("chunk: an abort", StepPoll, abort(0x80B90000)),
		say("chunk: an abort without an error", StepPoll, abort(0)),
		say("chunk: an abort of no words", StepPoll, func(a Answer) []byte { return a.Chunk('A', 0, nil) }),
		behind("chunk: an abort behind 2 MB", func(a Answer, n int) []byte { return a.Chunk('A', n, join(words(0x80060000), make([]byte, 60_000))) }),
		behind("chunk: an error behind 2 MB", func(Answer, int) []byte { return Frame("ERRF", join(words(0x80060000), make([]byte, 60_000))) }),
		behind("chunk: the end behind 2 MB", func(a Answer, n int) []byte { return a.Chunk('F', n, make([]byte, 60_000)) }),
		endless("chunk: endless small", StepPoll, func(a Answer) []byte { return a.Chunk('C', 0, []byte{0}) }),
		endless("chunk: endless empty", StepPoll, func(a Answer) []byte { return a.Chunk('C', 0, nil) }),
		endless("chunk: endless large", StepPoll, func(a Answer) []byte { return a.Chunk('C', 0, make([]byte, 65535-24)) }),
		endless("chunk: endless for others", StepPoll, func(a Answer) []byte { a.Request += 7; return a.Chunk('C', 0, make([]byte, 65535-24)) }),
		{Name: "chunk: 511 large", Step: StepPoll, Slow: true, Play: func(w io.Writer, a Answer) bool {
			for n := range 511 {
				w.Write(a.Chunk('C', n, make([]byte, 65535-24)))
			}
			return true
		}},
		endless("chunk: endless opens", StepPoll, func(a Answer) []byte { a.Kind, a.Body = "OPN", OpenBody(1000); return a.Bytes() }),
		endless("chunk: endless answers to nobody", StepPoll, func(a Answer) []byte { a.Request += 1000; return a.Bytes() }),
	}
}

func readTricks() []Trick {
	values := func(name string, step Step, n func(nodes int) int) Trick {
		return body("read: "+name, step, func(a Answer) []byte {
			list := make([][]byte, n(a.Nodes))
			for i := range list {
				list[i] = Number(1)
			}
			return ReadBody(list...)
		})
	}
	return []Trick{
		values("one result less", StepPoll, func(n int) int { return n - 1 }),
		values("one result more", StepPoll, func(n int) int { return n + 1 }),
		values("no results", StepPoll, func(int) int { return 0 }),
		values("no results for the limits", StepLimits, func(int) int { return 0 }),
		body("read: 100 M results", StepPoll, func(Answer) []byte { return join(ResponseHead(634, 0), words(100_000_000)) }),
		body("read: results below 0", StepPoll, func(Answer) []byte { return join(ResponseHead(634, 0), words(0x80000000)) }),
		many("read: 2 M empty results", words(2_000_000), 2_000_000),
		body("read: another service's response", StepPoll, func(Answer) []byte { return CreateSessionBody() }),
		body("read: an unknown service's response", StepPoll, func(Answer) []byte { return ResponseHead(9999, 0) }),
		body("read: a request", StepPoll, func(Answer) []byte { return ResponseHead(631, 0) }),
		body("read: an OpenSecureChannel response", StepPoll, func(Answer) []byte { return OpenBody(1) }),
		body("read: a type id of an odd namespace", StepPoll, func(a Answer) []byte {
			return join([]byte{0xc3, 9, 0}, text("s"), text("urn:x"), words(1), a.Body[4:])
		}),
		body("read: no body", StepPoll, func(Answer) []byte { return nil }),
		body("read: bytes behind the end", StepPoll, func(a Answer) []byte { return join(a.Body, make([]byte, 100)) }),
		body("read: a fault", StepPoll, func(Answer) []byte { return ResponseHead(397, 0x80250000) }),
		body("read: a string table of 100 M", StepPoll, func(a Answer) []byte { return join(a.Body[:21], words(100_000_000), a.Body[25:]) }),
		body("read: nested diagnostics", StepPoll, func(a Answer) []byte {
			return join(a.Body[:20], bytes.Repeat([]byte{0x40}, 60_000), a.Body[20:])
		}),
	}
}

// many sends a Read response of n bytes 0 behind a head of the results, in as many chunks as it takes.
func many(name string, results []byte, n int) Trick {
	return Trick{Name: name, Step: StepPoll, Play: func(w io.Writer, a Answer) bool {
		return a.WriteChunks(w, join(ResponseHead(634, 0), results, make([]byte, n))) == nil
	}}
}

// WriteChunks writes a body in chunks of 60,000 bytes, the last of them final.
func (a Answer) WriteChunks(w io.Writer, body []byte) error {
	for n := 0; ; n++ {
		size, kind := min(len(body), 60_000), byte('C')
		if size == len(body) {
			kind = 'F'
		}
		if _, err := w.Write(a.Chunk(kind, n, body[:size])); err != nil || kind == 'F' {
			return err
		}
		body = body[size:]
	}
}

func valueTricks() []Trick {
	// first spoils the value of the node "v0", which is the first asked for; those of the others are right.
	first := func(name string, value ...[]byte) Trick {
		return Trick{Name: "value: " + name, Step: StepPoll, Play: func(w io.Writer, a Answer) bool {
			if !bytes.Contains(a.Asked, []byte("v0")) {
				_, err := w.Write(a.Bytes())
				return err == nil
			}
			honest := a.Body[len(ResponseHead(634, 0))+4:]
			return a.WriteChunks(w, join(ResponseHead(634, 0), words(uint32(a.Nodes)), join(value...), honest[len(Number(0)):])) == nil
		}}
	}
	nested := func(n int, b ...byte) []byte { return bytes.Repeat(b, n) }
	inArray := append([]byte{0x98}, words(1)...)
	return []Trick{
		first("array below null", []byte{1, 0x8b}, words(0xfffffffe)),
		first("array of the smallest length", []byte{1, 0x8b}, words(0x80000000)),
		first("array of 100 M", []byte{1, 0x8b}, words(100_000_000)),
		first("array of 2 G", []byte{1, 0x8b}, words(0x7fffffff)),
		first("array of 65,535 that is not there", []byte{1, 0x8b}, words(65535)),
		first("array of 65,535 nulls", []byte{1, 0x98}, words(65535), make([]byte, 65535)),
		first("array of 65,535 empty values", []byte{1, 0x97}, words(65535), make([]byte, 65535)),
		first("array of 65,536 bytes", []byte{1, 0x83}, words(65536), make([]byte, 65536)),
		first("array of 1 M variants", []byte{1, 0x98}, words(1_000_000), make([]byte, 1_000_000)),
		first("2 G dimensions", []byte{1, 0xcb}, words(0), words(0x7fffffff)),
		first("dimensions below 0", []byte{1, 0xcb}, words(0), words(0x80000000)),
		first("dimensions that overflow to 0", []byte{1, 0xcb}, words(0), words(2, 65536, 65536)),
		first("dimensions that overflow to 0, with rows", []byte{1, 0xcb}, words(0), words(3, 65536, 65536, 1)),
		first("dimensions that overflow to 1", []byte{1, 0xc3}, words(1), []byte{1}, words(3, 0x10001, 0x10001, 0xfffe0001)),
		first("10,000 dimensions of 1", []byte{1, 0xc3}, words(1), []byte{1}, words(10_000), bytes.Repeat(words(1), 10_000)),
		first("65,535 rows in 8 dimensions", []byte{1, 0xc3}, words(65535), make([]byte, 65535), words(8, 65535, 1, 1, 1, 1, 1, 1, 1)),
		first("text of 4 GB", []byte{1, 12}, words(0xfffffff0)),
		first("text of 2 GB", []byte{1, 12}, words(0x7fffffff)),
		first("text of 2 MB", []byte{1, 12}, words(2_000_000), make([]byte, 2_000_000)),
		first("type 63", []byte{1, 63}),
		first("type 26", []byte{1, 26}),
		first("node id of an unknown kind", []byte{1, 17, 0x0e}, make([]byte, 40)),
		first("2 M nested variants", []byte{1}, nested(2_000_000, 24)),
		first("300,000 nested arrays of a variant", []byte{1}, nested(300_000, inArray...)),
		first("600,000 nested data values", nested(600_000, 1, 23)),
		first("2 M nested diagnostics", []byte{1, 25}, nested(2_000_000, 0x40)),
		first("structure of 4 GB", []byte{1, 22, 0, 0, 1}, words(0xfffffff0)),
		first("structure in an unknown encoding", []byte{1, 22, 0, 0, 77}, words(4), make([]byte, 4)),
		first("a mask of all bits", nested(100, 0xff)),
	}
}

// silences are answers that never end, or come a byte at a time.
func silences() []Trick {
	var all []Trick
	for _, step := range Steps() {
		all = append(all,
			Trick{Name: "silence: " + string(step), Step: step, Slow: true, Play: func(io.Writer, Answer) bool { return true }},
			Trick{Name: "hangs up: " + string(step), Step: step, Play: func(io.Writer, Answer) bool { return false }},
			Trick{Name: "half an answer: " + string(step), Step: step, Slow: true, Play: func(w io.Writer, a Answer) bool {
				w.Write(a.Bytes()[:20])
				return true
			}},
			Trick{Name: "a byte at a time: " + string(step), Step: step, Slow: true, Play: func(w io.Writer, a Answer) bool {
				for _, b := range a.Bytes() {
					if _, err := w.Write([]byte{b}); err != nil {
						return false
					}
					time.Sleep(250 * time.Millisecond) // longer than anybody waits
				}
				return true
			}})
	}
	return all
}
