package redisnode

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// askTimeout bounds a query to one Sentinel or cluster node.
const askTimeout = 500 * time.Millisecond

// askAll queries all addresses in parallel. It returns the successful answers in the order of the
// addresses, and the errors of the failed queries joined into one.
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

// oneLine joins the non-nil errors into one with a single-line text, because /ready shows it. It returns
// nil if all are nil.
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
