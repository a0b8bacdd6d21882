// Package configs holds the reference of all keys, so that a binary is enough to see it. The command `millrace config
// reference` prints it; the tests of gateway/config hold it to what is loaded.
package configs

import _ "embed"

// Reference is reference.yaml: every key with its default, its bounds and a comment.
//
//go:embed reference.yaml
var Reference string
