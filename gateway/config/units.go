package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

type unit struct {
	name string
	size int64
}

// durationUnits returns the units of a duration, largest first.
func durationUnits() [5]unit {
	return [...]unit{
		{"d", int64(24 * time.Hour)}, {"h", int64(time.Hour)}, {"m", int64(time.Minute)},
		{"s", int64(time.Second)}, {"ms", int64(time.Millisecond)},
	}
}

// sizeUnits returns the units of a size in bytes, largest binary ones first.
func sizeUnits() [9]unit {
	return [...]unit{
		{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
		{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
	}
}

const (
	durationHelp = "write a number and its unit, ms, s, m, h or d, such as 500ms, 1m30s or 30d"
	sizeHelp     = "write a number and its unit, B, KB, MB, GB, TB (thousands) or KiB, MiB, GiB, TiB (1024s), such as 512KiB or 2GiB"
)

// parseDuration reads a duration such as 500ms, 1m30s, 1.5h or 30d; 0 needs no unit. The error says what
// is wrong with the text.
func parseDuration(s string) (time.Duration, error) {
	units := durationUnits()
	if s == "0" {
		return 0, nil
	}
	var sum int64
	for rest := s; ; {
		n, after, err := parseQuantity(rest, units[:])
		if err != nil {
			return 0, err
		}
		if n > math.MaxInt64-sum {
			return 0, fmt.Errorf("is too large")
		}
		if sum, rest = sum+n, after; rest == "" {
			break
		}
	}
	if sum%int64(time.Millisecond) != 0 {
		return 0, fmt.Errorf("is finer than 1ms")
	}
	return time.Duration(sum), nil
}

// parseSize reads a number of bytes such as 512KiB or 1.5GB; 0 needs no unit.
func parseSize(s string) (int64, error) {
	units := sizeUnits()
	if s == "0" {
		return 0, nil
	}
	n, rest, err := parseQuantity(s, units[:])
	if err == nil && rest != "" {
		err = fmt.Errorf("has %q after its unit", rest)
	}
	return n, err
}

// parseQuantity reads one number and its unit from the front of s.
func parseQuantity(s string, units []unit) (n int64, rest string, err error) {
	digits := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if digits < 0 {
		digits = len(s)
	}
	number := s[:digits]
	value, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, "", fmt.Errorf("is not a number with a unit")
	}
	word := strings.TrimLeft(s[digits:], " ")
	end := strings.IndexFunc(word, func(r rune) bool { return r == '.' || r >= '0' && r <= '9' })
	if end < 0 {
		end = len(word)
	}
	word, rest = word[:end], word[end:]
	if word == "" {
		return 0, "", fmt.Errorf("has no unit")
	}
	for _, u := range units {
		if u.name == word {
			n, err = times(number, value, u.size)
			return n, rest, err
		}
	}
	return 0, "", fmt.Errorf("has the unknown unit %q%s", word, sameButCase(word, units))
}

func times(number string, value float64, size int64) (int64, error) {
	if value*float64(size) >= math.MaxInt64 {
		return 0, fmt.Errorf("is too large")
	}
	if whole, err := strconv.ParseInt(number, 10, 64); err == nil {
		return whole * size, nil
	}
	return int64(math.Round(value * float64(size))), nil
}

func sameButCase(word string, units []unit) string {
	for _, u := range units {
		if strings.EqualFold(u.name, word) {
			return fmt.Sprintf(" (is it %s?)", u.name)
		}
	}
	return ""
}

// formatDuration returns the shortest text that parseDuration reads back.
func formatDuration(d time.Duration) string {
	units := durationUnits()
	return formatQuantity(int64(d), units[:])
}

// formatSize returns the shortest text that parseSize reads back.
func formatSize(n int64) string {
	units := sizeUnits()
	return formatQuantity(n, units[:])
}

func formatQuantity(n int64, units []unit) string {
	if n == 0 {
		return "0"
	}
	for _, u := range units {
		if n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	last := units[len(units)-1]
	return strconv.FormatFloat(float64(n)/float64(last.size), 'f', -1, 64) + last.name
}
