// Package values keeps the last reading of every tag, says which devices answer, and lets others watch. The pipeline
// puts readings in, after scaling and before report by exception; pages, commands, formats and the API look.
package values

// Table holds the last readings of all tags of a gateway.
type Table struct{}
