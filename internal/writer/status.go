package writer

import (
	"net/http"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/redisnode"
)

// serveStatus tells which Redis server single writes go to.
func serveStatus(f *redisnode.Finder) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		httpkit.JSON(w, http.StatusOK, map[string]redisnode.Server{"redis": f.Server()})
	}
}
