package control

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"

	"heavy-read-api/internal/httpkit"
)

// ownerOnly passes only requests of the stack's own user and of root. The listener is on the loopback interface, which all
// users of a machine share. The kernel knows whose socket a connection belongs to, so neither commands nor the page need
// a token, and a forwarded port (ssh -L) works for the user who forwards it. Other systems than
// Linux do not tell; there every user of the machine is accepted.
func ownerOnly(h http.Handler) http.Handler { return usersOnly(h, os.Getuid(), 0) }

func usersOnly(h http.Handler, users ...int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := refusal(r, users); err != nil {
			httpkit.Problem{Status: http.StatusForbidden, Detail: err.Error()}.WriteTo(w)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// refusal returns why a request is refused, nil if it is not.
func refusal(r *http.Request, users []int) error {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil {
		return errors.New("only the user of the stack may change it, and the sender is not known")
	}
	user, known, err := userOf(r.RemoteAddr, local.String())
	switch {
	case err != nil:
		return fmt.Errorf("only the user of the stack may change it, and the sender is not known: %w", err)
	case known && !slices.Contains(users, user):
		return fmt.Errorf("only the user of the stack may change it, not user %d", user)
	}
	return nil
}
