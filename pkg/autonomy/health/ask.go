package health

import (
	"context"
	"time"

	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

// Limits of asking.
const (
	askTime  = 4 * time.Second  // one answer
	askSoon  = 5 * time.Second  // between questions to a node that has been silent for less than askLong
	askLater = 30 * time.Second // and for longer
	askLong  = 2 * time.Minute
	maxAsked = 16 // nodes at once
)

// answer is what came of asking a node.
type answer struct {
	node  string
	asked time.Time
	err   error
}

// doubted says which nodes are to be asked: those that have been silent for nearly too long, and those that a neighbour takes for gone.
func doubted(s settings, facts []verdict.Node) map[string]bool {
	out, units := map[string]bool{}, map[string]string{}
	for _, n := range facts {
		units[n.Name] = n.Unit
		if n.Silence >= s.rules.LostAfter-askTime {
			out[n.Name] = true
		}
	}
	for _, voter := range facts {
		for about, vote := range voter.Votes {
			if unit, known := units[about]; known && unit == voter.Unit && vote.View == verdict.Gone {
				out[about] = true
			}
		}
	}
	return out
}

// ask has doubted nodes asked, each from time to time.
func (c *Controller) ask(ctx context.Context, s settings, facts []verdict.Node, now time.Time) {
	busy := 0
	for _, m := range c.records {
		if m.asking {
			busy++
		}
	}
	for name := range doubted(s, facts) {
		m := c.records[name]
		pause := askSoon
		if now.Sub(m.heard) > askLong {
			pause = askLater
		}
		if m.asking || now.Sub(m.asked) < pause || busy >= maxAsked {
			continue
		}
		m.asking, m.asked = true, now
		busy++
		go func() {
			one, cancel := context.WithTimeout(ctx, askTime)
			defer cancel()
			err := c.cfg.Ask(one, name)
			select {
			case c.answers <- answer{name, now, err}:
			case <-ctx.Done():
			}
		}()
	}
}

// hear takes up the answers. A node that has given a sign of life since the question was put has answered it.
func (c *Controller) hear(now time.Time) {
	for {
		select {
		case a := <-c.answers:
			m := c.records[a.node]
			if m == nil {
				continue
			}
			m.asking = false
			if a.err == nil {
				m.heard, m.unanswered, m.dead = now, false, false
			} else if m.heard.Before(a.asked) {
				m.unanswered = true
			}
		default:
			return
		}
	}
}
