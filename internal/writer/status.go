package writer

import (
	"net/http"

	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/service"
)

// serveStatus tells which Redis server single writes go to.
func serveStatus(f *redisnode.Finder) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		service.JSON(w, http.StatusOK, map[string]redisnode.Server{"redis": f.Server()})
	}
}
