package opcua

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"millrace/drivers/opcua/wire"
)

// thousands writes a number as README does.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// TestBoundsAreDocumented: the table of README.md has each bound as the code has it.
func TestBoundsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(b), "| what | at most | beyond it |\n")
	table, _, ended := strings.Cut(table, "\n\n")
	if !found || !ended {
		t.Fatal("README.md has no table of bounds")
	}
	mib := func(n int) string { return fmt.Sprintf("%d MiB", n>>20) }
	for row, bounds := range map[string][]string{
		"chunks of an answer":                  {thousands(wire.MaxChunks)},
		"answer":                               {mib(wire.MaxMessage)},
		"requests open":                        {thousands(wire.MaxOpen)},
		"readings of a push; pushes that wait": {thousands(maxPush) + "; " + thousands(maxPushes)},
		"messages that are asked for again at a time": {thousands(maxMissing)},
		"array": {thousands(maxElements) + " elements", thousands(maxNesting) + " dimensions", mib(maxArray)},
		"text":  {thousands(maxText)},
		"parts of a value, over its arrays and structures": {thousands(maxParts), thousands(maxLevels) + " structures"},
		"JSON of a value":                                                 {mib(maxArray)},
		"data types of a session":                                         {thousands(2 * maxTypes), mib(maxKept), thousands(maxFields) + " fields", thousands(maxNames) + " texts", thousands(maxDictionaries) + " type dictionaries", thousands(maxSchemaFields) + " fields"},
		"questions about one data type":                                   {thousands(maxLookup) + " times"},
		"unit, description":                                               {thousands(maxUnit) + ", " + thousands(maxDescription)},
		"endpoints, ways to log in of each":                               {thousands(maxEndpoints) + ", " + thousands(maxUsers)},
		"data types up to a built-in one":                                 {thousands(maxAbove)},
		"arguments of a method, or its results":                           {thousands(maxArguments)},
		"servers found, URLs of each":                                     {thousands(maxServers) + ", " + thousands(maxURLs)},
		"certificates that a server sends":                                {thousands(maxChain)},
		"nodes that a browse path leads to":                               {thousands(maxTargets)},
		"namespaces whose names are kept":                                 {thousands(maxIndexes), thousands(maxURI) + " bytes"},
		"data type's name, kept of each tag":                              {thousands(maxTypeName)},
		"of a rule: nodes looked at; text of their ids and paths; a path": {thousands(maxWalked), mib(maxWalkText), thousands(maxPath) + " bytes"},
		"of a rule: tags; nodes a Browse request; time at a stretch":      {thousands(maxSelected), thousands(maxTogether), thousands(int(walkTime/time.Millisecond)) + " ms"},
		"names below a node where a path ends":                            {thousands(maxBrowsed), thousands(maxName) + " bytes"},
		"session token, nonce":                                            {thousands(maxToken>>10) + " KiB, " + thousands(maxNonce>>10) + " KiB"},
		"connections that are lost in a row over one data type, a rule, a hint to what is below a node, conditions, history": {thousands(maxLapses) + " "},
		"continuation points of a request for history":    {thousands(maxPoint)},
		"conditions of a tag of events that are followed": {thousands(maxOpen)},
	} {
		_, line, found := strings.Cut("\n"+table, "\n| "+row+" |")
		line, _, _ = strings.Cut(line, "\n")
		if !found {
			t.Errorf("no row %q", row)
			continue
		}
		for _, bound := range bounds {
			if !strings.Contains(line, bound) {
				t.Errorf("%s: want %s in\n%s", row, bound, line)
			}
		}
	}
}
