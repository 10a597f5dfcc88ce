package protocol

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/read.lua
	readLua string
	//go:embed lua/denied.lua
	deniedLua string
	//go:embed lua/write.lua
	writeLua string
	//go:embed lua/check.lua
	checkLua string
	//go:embed lua/settle.lua
	settleLua string
	//go:embed lua/step.lua
	stepLua string

	WriteScript   = redis.NewScript(readLua + deniedLua + writeLua)
	CheckScript   = redis.NewScript(deniedLua + checkLua)
	SettleScript  = redis.NewScript(readLua + settleLua)
	logStepScript = redis.NewScript(readLua + stepLua)
)

// allScripts are what writers and readers run. They run by their digests alone: a user that may run EVAL
// could run any script, such as one that never ends and stops Redis for everybody.
var allScripts = []*redis.Script{WriteScript, CheckScript, SettleScript, logStepScript}

// RunLoaded calls run, which runs one of the scripts. When the server does not have it, as after a restart,
// runLoaded loads all of them and calls run again. So a writer, which checks Redis all the time, loads the
// readers' script too, whose user may have no right to do so.
func RunLoaded(ctx context.Context, on redis.Scripter, run func() *redis.Cmd) *redis.Cmd {
	cmd := run()
	if !redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		return cmd // for all other errors the script may have run
	}
	for _, s := range allScripts {
		if err := s.Load(ctx, on).Err(); err != nil {
			if Denied(err) {
				err = fmt.Errorf("the script is not loaded in Redis yet, and this user may not load it: a writer of this version does when it runs, or an operator by SCRIPT LOAD: %w", err)
			}
			cmd.SetErr(err)
			return cmd
		}
	}
	return run()
}

// Denied reports whether err says that the access list of Redis does not let the user do something. For a
// command in a script Redis has words of its own in the place of NOPERM: one in 7.0, another in 7.2 and newer.
func Denied(err error) bool {
	return redis.HasErrorPrefix(err, "NOPERM") ||
		err != nil && (strings.Contains(err.Error(), "The user executing the script can't") || strings.Contains(err.Error(), "ACL failure in script"))
}
