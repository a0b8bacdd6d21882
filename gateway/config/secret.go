package config

import "log/slog"

const mask = "***"

// Secret is a text that never prints itself: every way of formatting, logging or marshalling it yields "***".
// The zero value is "no secret". Two secrets of the same text are equal to reflect.DeepEqual, not to ==.
type Secret struct {
	// A pointer, because fmt prints unexported fields without asking their methods: it then shows an address.
	text *string
}

// NewSecret returns a secret that holds text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text itself, "" for none. Only code that logs in somewhere should call it.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no secret, or an empty one.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// String returns "***", or "" when there is no secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return mask
}

// GoString returns what String returns, quoted.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// MarshalText returns what String returns; it never fails.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns what String returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
