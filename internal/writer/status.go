package writer

import (
	"net/http"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/redisnode"
)

// serveStatus reports the Redis server that single writes are sent to. It leaves out a server that does not answer:
// during a failover that is the dead primary, until the new one is found.
func serveStatus(f *redisnode.Finder, s *state) http.HandlerFunc {
	type status struct {
		Redis   redisnode.Server `json:"redis"`
		Problem string           `json:"problem,omitempty"` // reason why the server is left out
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		answer := status{Redis: f.Server()}
		if now := s.checked.Load(); now.status == statusNoRedis && answer.Redis.Addr != "" {
			answer = status{redisnode.Server{Moves: answer.Redis.Moves}, "no primary is known: " + now.problem}
		}
		httpkit.JSON(w, http.StatusOK, answer)
	}
}
