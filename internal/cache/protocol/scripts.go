package protocol

import (
	"context"
	_ "embed"
	"fmt"

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

	// The scripts for the publisher.
	WriteScript   = redis.NewScript(readLua + deniedLua + writeLua)
	CheckScript   = redis.NewScript(deniedLua + checkLua)
	SettleScript  = redis.NewScript(readLua + settleLua)
	logStepScript = redis.NewScript(readLua + stepLua)
)

// allScripts are the scripts of writers and readers. They run by their digests only, because a Redis user with the right to
// EVAL could run any script, for instance one that never ends and blocks Redis.
var allScripts = []*redis.Script{WriteScript, CheckScript, SettleScript, logStepScript}

// RunLoaded calls run, which runs one of the scripts. When the server does not have the script, as after a restart,
// RunLoaded loads all scripts and calls run again. So a writer, which checks Redis once a second, also loads the script
// of the readers, whose user may lack the right to load it.
func RunLoaded(ctx context.Context, on redis.Scripter, run func() *redis.Cmd) *redis.Cmd {
	cmd := run()
	if !redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		return cmd // after any other error the script may have run
	}
	for _, s := range allScripts {
		if err := s.Load(ctx, on).Err(); err != nil {
			if Denied(err) {
				err = fmt.Errorf("the script is not loaded in Redis, and this user may not load it: start a writer of this version, or run SCRIPT LOAD: %w", err)
			}
			cmd.SetErr(err)
			return cmd
		}
	}
	return run()
}
