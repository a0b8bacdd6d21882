package web

import (
	"embed"
	"net/http"
)

// schemas are the JSON schemas of the API's answers. They say what is there; a later version may add to it.
//
//go:embed schema/*.json
var schemas embed.FS

func serveSchema(w http.ResponseWriter, r *http.Request) {
	text, err := schemas.ReadFile("schema/" + r.PathValue("name"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	reply(w, http.StatusOK, "application/schema+json", text)
}
