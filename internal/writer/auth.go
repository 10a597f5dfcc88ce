package writer

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"heavy-read-api/internal/httpkit"
)

// tokenGuard refuses requests that do not carry the bearer token.
type tokenGuard struct {
	open bool              // no token is required
	sum  [sha256.Size]byte // hash of the token
}

// newTokenGuard returns a guard for token. If token is empty, it accepts every request.
func newTokenGuard(token string) *tokenGuard {
	return &tokenGuard{open: token == "", sum: sha256.Sum256([]byte(token))}
}

func (g *tokenGuard) guard(next http.HandlerFunc) http.HandlerFunc {
	if g.open {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if !g.authorized(r.Header["Authorization"]) {
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

func (g *tokenGuard) authorized(headers []string) bool {
	if len(headers) != 1 {
		return false
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	// Compare hashes, which all have the same length: comparing the tokens would leak the length of the secret.
	sum := sha256.Sum256([]byte(strings.TrimLeft(token, " ")))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], g.sum[:]) == 1
}
