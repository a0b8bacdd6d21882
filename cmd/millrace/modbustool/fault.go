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
  silent-over:COUNT          says nothing to requests for more registers
  exception-over:COUNT       answers them with exception 3
  transaction-zero           answers with transaction id 0
  wrong-unit                 answers in the name of the next unit id
  noise:COUNT                sends random bytes before each answer (RTU, ASCII)
WHERE is unit:5, holding:10, holding:10-19 or another table.`

// parseFault reads "silent:holding:10".
func parseFault(text string) (modbussim.Fault, error) {
	word, rest, _ := strings.Cut(text, ":")
	f, err := faultOf(word, rest)
	if err != nil {
		return f, fmt.Errorf("fault %q: %w", text, err)
	}
	return f, nil
}

func faultOf(word, rest string) (f modbussim.Fault, err error) {
	var number int
	switch word {
	case "silent", "close":
		f.Kind = modbussim.Silence
		if word == "close" {
			f.Kind = modbussim.CloseAt // after no byte of the answer
		}
		f.Match, err = parseWhere(rest)
	case "exception":
		code, where, _ := strings.Cut(rest, ":")
		f.Kind = modbussim.Exception
		if number, err = bounded(code, 1, 127); err == nil {
			f.Code = byte(number)
			f.Match, err = parseWhere(where)
		}
	case "delay":
		wait, where, _ := strings.Cut(rest, ":")
		f.Kind = modbussim.Delay
		if f.Wait, err = parseWait(wait); err == nil {
			f.Match, err = parseWhere(where)
		}
	case "deaf-after-connect", "hasty":
		f.Kind = modbussim.Deaf
		if word == "hasty" {
			f.Kind = modbussim.Hasty
		}
		f.Wait, err = parseWait(rest)
	case "silent-over", "exception-over":
		f.Kind, f.Code = modbussim.Silence, 3
		if word == "exception-over" {
			f.Kind = modbussim.Exception
		}
		number, err = bounded(rest, 1, 2000)
		f.Match = func(q modbussim.Request) bool { return int(q.Count) > number }
	case "noise":
		f.Kind, f.Seed = modbussim.LineNoise, 1
		f.N, err = bounded(rest, 1, 200)
	default:
		return plainFault(word, rest)
	}
	return f, err
}

// plainFault reads those without anything after their name.
func plainFault(word, rest string) (modbussim.Fault, error) {
	kinds := map[string]modbussim.Kind{"close-after-answer": modbussim.CloseAfter, "transaction-zero": modbussim.ZeroTransaction, "wrong-unit": modbussim.WrongUnit}
	kind, ok := kinds[word]
	if !ok {
		return modbussim.Fault{}, fmt.Errorf("there is none of that name; use one of\n%s", faultHelp)
	}
	if rest != "" {
		return modbussim.Fault{}, fmt.Errorf("nothing stands after %s", word)
	}
	return modbussim.Fault{Kind: kind}, nil
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
