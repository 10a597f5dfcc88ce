package writer

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"heavy-read-api/internal/httpkit"
)

// lock admits requests that carry the token.
type lock struct {
	open bool
	sum  [sha256.Size]byte // of the token
}

// newLock returns a lock for token. With an empty token it admits every request.
func newLock(token string) *lock {
	return &lock{open: token == "", sum: sha256.Sum256([]byte(token))}
}

func (l *lock) guard(next http.HandlerFunc) http.HandlerFunc {
	if l.open {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if !l.fits(r.Header["Authorization"]) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			httpkit.Problem{
				Status: http.StatusUnauthorized,
				Field:  "Authorization",
				Detail: "writes need the header Authorization: Bearer <the writer's token>",
			}.WriteTo(w)
			return
		}
		next(w, r)
	}
}

func (l *lock) fits(headers []string) bool {
	if len(headers) != 1 {
		return false
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	// Sums have equal lengths: comparing the tokens themselves would leak the length of ours.
	sum := sha256.Sum256([]byte(strings.TrimLeft(token, " ")))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], l.sum[:]) == 1
}
