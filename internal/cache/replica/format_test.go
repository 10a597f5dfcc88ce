package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/test/eventually"
)

// message encodes the message of a commit with one write, as publisher and write.lua do together.
func message(head protocol.Head, w protocol.Write) []byte {
	b := binary.BigEndian.AppendUint64(nil, head.Epoch)
	b = binary.BigEndian.AppendUint64(b, head.Version)
	b = binary.BigEndian.AppendUint64(b, head.WriteID)
	b = binary.BigEndian.AppendUint64(b, 0) // previous write id
	return protocol.AppendFrame(b, &w, time.Now())
}

// A writer of a later build writes while one reader of this build runs and another one starts. Both report it, keep their
// entries, and do not answer 404 for the new post. Once the value is gone, they continue.
func TestAnotherFormat(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		k, c := protocol.NewKeys(protocol.DefaultNamespace), client(t, addr)
		p, running := newPublisher(t, addr), startReplica(t, addr)
		ready(t, running)
		last := write(t, p, set("a", "1"), set("b", "1"))[1].Token
		reached(t, running, last)

		top, err := c.XRevRangeN(t.Context(), k.Log, "+", "-", 1).Result()
		if err != nil {
			t.Fatal(err)
		}
		head := protocol.Head{Epoch: last.Epoch, Version: last.Version + 1, WriteID: 99}
		w := set("new", "2")
		m := message(head, w)
		m[protocol.MessageHeader] = protocol.FrameFormat + 1
		stored := append(m[:protocol.StampSize:protocol.StampSize], m[protocol.MessageHeader:]...)
		packed := protocol.AppendLogged(append(binary.BigEndian.AppendUint64(nil, head.WriteID), top[0].Values["e"].(string)[:8]...), &w)
		_, err = c.TxPipelined(t.Context(), func(tx redis.Pipeliner) error {
			tx.XAdd(t.Context(), &redis.XAddArgs{Stream: k.Log, ID: fmt.Sprint(head.Version, "-0"), Values: []any{"e", packed}})
			tx.Set(t.Context(), k.Seq, head.Version, 0)
			tx.Set(t.Context(), k.Prefix+"new", stored, 0)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}

		starting := startReplica(t, addr)
		const want = "posts in Redis have format 2, and this build reads format 1: run writer and readers of one version"
		for name, r := range map[string]*Replica{"running": running, "starting": starting} {
			eventually.True(t, "report of the reader that is "+name, func() bool { return strings.Contains(r.Status().Problem, want) })
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			if _, present, err := r.Fetch(ctx, "new", Min{}); err == nil || present {
				t.Errorf("%s: fetched the post: %v, %v", name, present, err)
			}
			cancel()
			if _, _, err := r.Direct(t.Context(), "new", Min{}); !errors.Is(err, errUnavailable) {
				t.Errorf("%s: read from Redis: %v", name, err)
			}
		}
		holds(t, running, "a", "1")
		if s := starting.Status(); s.Ready {
			t.Error("the reader that starts is ready without the post")
		}

		if err := c.Del(t.Context(), k.Prefix+"new").Err(); err != nil {
			t.Fatal(err)
		}
		token := write(t, p, set("a", "2"))[0].Token
		for _, r := range []*Replica{running, starting} {
			reached(t, r, token)
			holds(t, r, "a", "2")
		}
	})
}
