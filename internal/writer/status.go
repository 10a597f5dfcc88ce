package writer

import (
	"net/http"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/redisnode"
)

// serveStatus reports the Redis server that single writes go to. A server that does not answer is not named: in a
// failover it is the dead primary, until the next one is found.
func serveStatus(f *redisnode.Finder, s *state) http.HandlerFunc {
	type status struct {
		Redis   redisnode.Server `json:"redis"`
		Problem string           `json:"problem,omitempty"` // why no server is named
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		answer := status{Redis: f.Server()}
		if now := s.checked.Load(); now.status == statusNoRedis && answer.Redis.Addr != "" {
			answer = status{redisnode.Server{Moves: answer.Redis.Moves}, "no primary is known: " + now.problem}
		}
		httpkit.JSON(w, http.StatusOK, answer)
	}
}
