package health

import (
	"context"
	"errors"
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
	// enough is how many questions without an answer make a node lost: one may drown where the node or this machine is busy.
	enough = 2
)

// waiting says whether an answer may still come of a node that has been silent for this long.
func (m *memory) waiting(s settings, silence time.Duration) bool {
	return m.failed < enough && silence < s.rules.LostAfter+enough*askSoon
}

// stall is for how long this server did not look at its nodes, though it should have: the machine stood still, or was busy. What a node said meanwhile may
// not have been heard yet.
func stall(before, now time.Time) time.Duration {
	if late := now.Sub(before) - tick; !before.IsZero() && late > 2*tick {
		return late
	}
	return 0
}

// missed takes a stall of this server off the silence of all nodes.
func (c *Controller) missed(now time.Time) {
	late := stall(c.looked, now)
	c.looked = now
	for _, m := range c.records {
		m.heard = m.heard.Add(late)
	}
}

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
			switch {
			case a.err == nil:
				m.heard, m.unanswered, m.dead, m.failed = now, false, false, 0
			case m.heard.Before(a.asked):
				m.unanswered = true
				if m.failed++; !errors.Is(a.err, context.DeadlineExceeded) {
					m.failed = enough // nothing leads to it
				}
			}
		default:
			return
		}
	}
}
