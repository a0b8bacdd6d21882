package modbustool

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"millrace/drivers/modbus"
	"millrace/drivers/modbus/modbussim"
)

// faultHelp is the faults that a simulated device has on demand.
const faultHelp = `  silent[:WHERE]             says nothing
  exception:CODE[:WHERE]     answers with an exception
  close[:WHERE]              closes the connection instead of an answer
  close-after-answer         closes it after each answer
  deaf-after-connect:TIME    says nothing so long after a connect
  hasty:TIME                 says nothing to a request sooner than that after an answer
  delay:TIME[:WHERE]         answers late
  drip:TIME                  answers a byte each TIME
  silent-over:COUNT          says nothing to requests for more registers
  exception-over:COUNT       answers them with exception 3
  exception-gaps             answers with exception 2 what asks for a register that no tag has
  transaction-zero           answers with transaction id 0
  wrong-transaction          answers with another transaction id
  wrong-unit                 answers in the name of the next unit id
  stale                      gives the answer before once more, and no other
  cut:COUNT                  answers with the first COUNT bytes only
  damage:BYTE                answers with a wrong bit in this byte
  garbage:COUNT              answers with random bytes
  junk:COUNT                 sends random bytes after each answer
  noise:COUNT                sends random bytes before each answer (RTU, ASCII)
  flood                      answers other transactions without end (TCP)
WHERE is unit:5, holding:10, holding:10-19 or another table. A fault with /N after it strikes each N-th of these requests only:
exception:6/2 is a device that is busy every other time.`

// gapsFault is the one that has to know the tags.
const gapsFault = "exception-gaps"

// faultWords are the names, and how what stands after each is read.
var faultWords = map[string]func(f *modbussim.Fault, rest string) error{
	"silent":             somewhere(modbussim.Silence),
	"close":              somewhere(modbussim.CloseAt), // after no byte of the answer
	"exception":          refusing,
	"delay":              late,
	"deaf-after-connect": lasting(modbussim.Deaf),
	"hasty":              lasting(modbussim.Hasty),
	"drip":               lasting(modbussim.Drip),
	"silent-over":        over(modbussim.Silence),
	"exception-over":     over(modbussim.Exception),
	"close-after-answer": plain(modbussim.CloseAfter),
	"transaction-zero":   plain(modbussim.ZeroTransaction),
	"wrong-transaction":  plain(modbussim.WrongTransaction),
	"wrong-unit":         plain(modbussim.WrongUnit),
	"stale":              plain(modbussim.StaleInstead),
	"flood":              plain(modbussim.Flood),
	"cut":                counted(modbussim.Partial, 1),
	"damage":             counted(modbussim.Spoil, 0),
	"garbage":            counted(modbussim.Garbage, 1),
	"junk":               counted(modbussim.JunkAfter, 1),
	"noise":              counted(modbussim.LineNoise, 1),
	gapsFault:            plain(modbussim.Exception), // the plant says where
}

// parseFault reads "silent:holding:10" or "damage:7/10".
func parseFault(text string) (f modbussim.Fault, err error) {
	one, every, some := strings.Cut(text, "/")
	word, rest, _ := strings.Cut(one, ":")
	read, known := faultWords[word]
	if !known {
		return f, fmt.Errorf("fault %q: there is none of that name; use one of\n%s", text, faultHelp)
	}
	if some {
		f.Every, err = bounded(every, 2, 1_000_000)
	}
	if err == nil {
		err = read(&f, rest)
	}
	if err != nil {
		return f, fmt.Errorf("fault %q: %w", text, err)
	}
	return f, nil
}

func somewhere(k modbussim.Kind) func(*modbussim.Fault, string) error {
	return func(f *modbussim.Fault, rest string) (err error) {
		f.Kind = k
		f.Match, err = parseWhere(rest)
		return err
	}
}

func refusing(f *modbussim.Fault, rest string) error {
	code, where, _ := strings.Cut(rest, ":")
	number, err := bounded(code, 1, 127)
	if f.Code = byte(number); err != nil {
		return err
	}
	return somewhere(modbussim.Exception)(f, where)
}

func late(f *modbussim.Fault, rest string) error {
	wait, where, _ := strings.Cut(rest, ":")
	if err := lasting(modbussim.Delay)(f, wait); err != nil {
		return err
	}
	return somewhere(modbussim.Delay)(f, where)
}

func lasting(k modbussim.Kind) func(*modbussim.Fault, string) error {
	return func(f *modbussim.Fault, rest string) (err error) {
		f.Kind = k
		f.Wait, err = parseWait(rest)
		return err
	}
}

func over(k modbussim.Kind) func(*modbussim.Fault, string) error {
	return func(f *modbussim.Fault, rest string) error {
		number, err := bounded(rest, 1, 2000)
		f.Kind, f.Code = k, 3
		f.Match = func(q modbussim.Request) bool { return int(q.Count) > number }
		return err
	}
}

func plain(k modbussim.Kind) func(*modbussim.Fault, string) error {
	return func(f *modbussim.Fault, rest string) error {
		if f.Kind = k; rest != "" {
			return errors.New("nothing stands after it")
		}
		return nil
	}
}

// counted reads a number of bytes, or which one, from least on.
func counted(k modbussim.Kind, least int) func(*modbussim.Fault, string) error {
	return func(f *modbussim.Fault, rest string) (err error) {
		f.Kind, f.Seed = k, 1
		f.N, err = bounded(rest, least, 200)
		return err
	}
}

func bounded(text string, low, high int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is no number from %d to %d", text, low, high)
	}
	return n, nil
}

func parseWait(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > time.Hour {
		return 0, fmt.Errorf("%q is no time up to 1h; write it like 2s", text)
	}
	return d, nil
}

// parseWhere reads "", "unit:5", "holding:10" or "holding:10-19".
func parseWhere(text string) (func(modbussim.Request) bool, error) {
	if text == "" {
		return nil, nil
	}
	if unit, ok := strings.CutPrefix(text, "unit:"); ok {
		n, err := bounded(unit, 0, 255)
		return modbussim.OfUnit(byte(n)), err
	}
	begin, end, ranged := strings.Cut(text, "-")
	function, first, err := modbus.Locate(begin)
	if err != nil {
		return nil, err
	}
	last := first
	if ranged {
		if last, err = bounded(end, first, 65535); err != nil {
			return nil, errors.New("write a range like holding:10-19")
		}
	}
	return func(q modbussim.Request) bool {
		return q.Table == modbussim.Table(function) && int(q.Addr) <= last && int(q.Addr)+int(q.Count) > first
	}, nil
}
