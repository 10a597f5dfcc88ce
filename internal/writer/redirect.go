package writer

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// redirect redirects reads of a post to readerURL, so that the Location of a new post leads to it. Location itself stays relative: behind a proxy that gives writer and readers one
// host, it is right without a detour. readerURL has no slash at its end.
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

// cleanReaderURL returns READER_URL without a slash at its end, or why it cannot work.
func cleanReaderURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("READER_URL is not the address of a reader or gateway: use a URL such as http://localhost:9080")
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}
