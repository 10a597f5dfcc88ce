package writer

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// redirect redirects reads of a post to readerURL, because clients follow the Location of a new post. That Location
// is relative, so that it also works behind a proxy that serves the writer and the readers under one host. readerURL
// has no trailing slash.
func redirect(readerURL string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		target := readerURL + r.URL.Path
		if r.URL.RawQuery != "" {
			target += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", target)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// cleanReaderURL returns READER_URL without a trailing slash, or an error if it is invalid.
func cleanReaderURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("READER_URL is not the URL of a reader or gateway: use a URL such as http://localhost:9080")
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}
