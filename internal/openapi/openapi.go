// Package openapi has the OpenAPI document of the writer and the readers.
package openapi

import (
	_ "embed"
	"net/http"
	"strconv"
)

// Path is the path of the document.
const Path = "/openapi.yaml"

// Document is the OpenAPI 3.1 document, in YAML.
//
//go:embed openapi.yaml
var Document string

// Serve answers with the document.
func Serve(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/yaml") // RFC 9512
	h.Set("Content-Length", strconv.Itoa(len(Document)))
	h.Set("Cache-Control", "no-cache")
	_, _ = w.Write([]byte(Document)) // fails only if the client has disconnected
}
