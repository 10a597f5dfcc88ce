package redisnode

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// askTimeout bounds a question to one Sentinel or cluster node.
const askTimeout = 500 * time.Millisecond

// askAll asks every address in parallel and returns the answers in the order of the addresses,
// without those that failed, and the errors of the others.
func askAll[T any](ctx context.Context, addrs []string, ask func(ctx context.Context, addr string) (T, error)) (answers []T, err error) {
	results := make([]T, len(addrs))
	errs := make([]error, len(addrs))
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var all sync.WaitGroup
	for i, addr := range addrs {
		all.Go(func() {
			if results[i], errs[i] = ask(ctx, addr); errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", addr, errs[i])
			}
		})
	}
	all.Wait()
	for i, e := range errs {
		if e == nil {
			answers = append(answers, results[i])
		}
	}
	return answers, oneLine(errs)
}

// oneLine joins errors, of which some may be nil, into one whose text is a single line: it is shown in
// /ready. It returns nil when all are.
func oneLine(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	return joined(errs)
}

type joined []error

func (j joined) Error() string {
	texts := make([]string, len(j))
	for i, err := range j {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (j joined) Unwrap() []error { return j }
