package writer

import (
	"net/http"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/httpkit"
)

// cookieAge is the lifetime of the cookie with the version of a write. A reader that works has the write after a
// millisecond; a minute is enough for one that catches up or takes a snapshot. A cookie that stayed longer would only make
// reads fail that its client could have had while Redis is down.
const cookieAge = time.Minute

// setVersion sets the headers with the version of a write, and the cookie if it is enabled. The cookie has the write id too:
// a failover can assign a lost version again.
func (h *handler) setVersion(w http.ResponseWriter, r *publisher.Result) {
	w.Header().Set("X-Version", r.Token.String())
	if !h.cookie {
		return
	}
	at := protocol.Position{Head: protocol.Head{Epoch: r.Token.Epoch, Version: r.Token.Version, WriteID: r.WriteID}}
	http.SetCookie(w, &http.Cookie{
		Name: httpkit.VersionCookie, Value: at.String(), Path: "/", MaxAge: int(cookieAge.Seconds()), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}
