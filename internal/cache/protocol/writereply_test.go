package protocol

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

// A reply of write.lua or settle.lua decodes as a whole or is an error.
func TestDecodeWriteReply(t *testing.T) {
	const epoch = "\x00\x00\x00\x00\x00\x00\x00\x07"
	committed := WriteReply{State: Committed, Micros: 5, Before: Token{Epoch: 7, Version: 9}, Outcomes: "CR"}
	one := committed
	one.Outcomes = "C"
	for name, tt := range map[string]struct {
		reply []any
		want  WriteReply
		fails bool
	}{
		"a letter for each":       {[]any{int64(1), int64(5), epoch, int64(9), "CR"}, committed, false},
		"one letter for all":      {[]any{int64(1), int64(5), epoch, int64(9), "C"}, one, false},
		"past its deadline":       {[]any{int64(0), int64(5)}, WriteReply{State: NotCommitted, Micros: 5}, false},
		"pending":                 {[]any{int64(2), int64(5)}, WriteReply{State: Pending, Micros: 5}, false},
		"unprovable":              {[]any{int64(3), int64(5)}, WriteReply{State: Unprovable, Micros: 5}, false},
		"empty":                   {nil, WriteReply{}, true},
		"no time":                 {[]any{int64(0)}, WriteReply{}, true},
		"no state":                {[]any{"1", int64(5), epoch, int64(9), "CR"}, WriteReply{}, true},
		"cut":                     {[]any{int64(1), int64(5), epoch, int64(9)}, WriteReply{}, true},
		"version is not a number": {[]any{int64(1), int64(5), epoch, "9", "CR"}, WriteReply{}, true},
		"negative version":        {[]any{int64(1), int64(5), epoch, int64(-1), "CR"}, WriteReply{}, true},
		"time is not a number":    {[]any{int64(0), "5"}, WriteReply{}, true},
		"too many letters":        {[]any{int64(1), int64(5), epoch, int64(9), "CRC"}, WriteReply{}, true},
		"no letter":               {[]any{int64(1), int64(5), epoch, int64(9), ""}, WriteReply{}, true},
		"no outcome":              {[]any{int64(1), int64(5), epoch, int64(9), nil}, WriteReply{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := DecodeWriteReply(tt.reply, 2)
			if (err != nil) != tt.fails || err == nil && got != tt.want {
				t.Errorf("%+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

// Only an entry of write.lua at the end of the log is a head.
func TestLogEnd(t *testing.T) {
	entry := func(id, packed string) []redis.XMessage {
		return []redis.XMessage{{ID: id, Values: map[string]any{"e": packed}}}
	}
	const packed = "\x00\x00\x00\x00\x00\x00\x00\x08previous"
	for name, tt := range map[string]struct {
		top  []redis.XMessage
		want Head
	}{
		"an entry":            {entry("12-0", packed), Head{Version: 12, WriteID: 8}},
		"an empty log":        {nil, Head{}},
		"a sequence part":     {entry("12-1", packed), Head{}},
		"no write id":         {entry("12-0", "short"), Head{}},
		"another field":       {[]redis.XMessage{{ID: "12-0", Values: map[string]any{"x": packed}}}, Head{}},
		"a version too large": {entry("18446744073709551616-0", packed), Head{}},
	} {
		if got := LogEnd(tt.top); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}
