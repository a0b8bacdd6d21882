package web

import (
	"crypto/sha256"
	_ "embed" // the page's three parts
	"encoding/base64"
	"strings"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// assemble returns the page as one document that asks for nothing else, and the policy that lets a browser
// run exactly this script and style and talk to nobody but us.
func assemble() (page []byte, csp string) {
	text := strings.NewReplacer("/*STYLE*/", pageCSS, "/*SCRIPT*/", pageJS).Replace(pageHTML)
	csp = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'; img-src data:; " +
		"style-src '" + digest(pageCSS) + "'; script-src '" + digest(pageJS) + "'"
	return []byte(text), csp
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
