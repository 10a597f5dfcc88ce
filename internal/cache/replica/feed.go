package replica

import (
	"context"

	"heavy-read-api/internal/cache/protocol"
)

// feedWindow is the default of Config.FeedWindow.
const feedWindow = 8 << 20

// feedLog is the log from which the feed reads what its window does not have.
type feedLog struct{ source }

func (l feedLog) FetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	return l.fetchStep(ctx, q)
}

func (l feedLog) FetchNewest(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	return l.fetchNewest(ctx, q)
}

func (l feedLog) MayLag() bool { return l.fromReplica() }
