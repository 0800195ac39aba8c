package join

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/http"
	"os"
)

// Refresh works until ctx is done. After a start without a server it asks for the settings of the cluster until one answers, and keeps them for the next
// start; when this start works with others, that is logged.
func (c *Client) Refresh(ctx context.Context) error {
	if !c.alone {
		<-ctx.Done()
		return nil
	}
	for attempt := 0; ctx.Err() == nil; attempt++ {
		data, problem := c.ask(ctx, func(ctx context.Context, server string) ([]byte, *Problem) {
			return c.do(ctx, server, http.MethodGet, pathConfig, nil)
		})
		if problem == nil {
			c.renew(data)
			<-ctx.Done()
			return nil
		}
		_ = sleep(ctx, max(problem.retryAfter, backoff(attempt, rand.Float64()))) // the loop sees that ctx is done
	}
	return nil
}

// renew keeps settings that came after the start.
func (c *Client) renew(data []byte) {
	known, err := os.ReadFile(c.cache)
	if err == nil && bytes.Equal(known, data) {
		return
	}
	if err := c.keep(data); err != nil {
		c.cfg.Log.Warn("the cluster's settings are not kept for a start without the server", "error", err)
		return
	}
	c.cfg.Log.Warn("the cluster's settings changed while this node was cut off: it uses them from the next start of kedge on")
}
