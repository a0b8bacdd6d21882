package config

import (
	"fmt"
	"strings"
)

// Nearest returns the candidate that word was probably meant to be, "" for none: at most one edit in three
// letters away, capitals and dashes aside.
func Nearest(word string, candidates []string) string {
	word = plain(word)
	if len(word) > 64 {
		return ""
	}
	best, least := "", 1+max(1, len(word)/3)
	for _, c := range candidates {
		if d := distance(word, plain(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

func plain(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// distance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	next := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}

// orList joins words as "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// didYouMean is the mend of an unknown word: the nearest of the choices, else all of them.
func didYouMean(word string, choices []string, use string) string {
	if near := Nearest(word, choices); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(choices) > 40 {
		choices = choices[:40]
	}
	return use + " " + orList(choices)
}
