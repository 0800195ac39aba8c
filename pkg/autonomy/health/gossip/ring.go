package gossip

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/kedge-io/kedge/pkg/autonomy/health/note"
)

// Times of a ring.
const (
	dialTime   = time.Second            // asking a machine, or joining
	goodbye    = 500 * time.Millisecond // telling the others that kedge stops
	askEvery   = 5 * time.Second        // a lost neighbour's machine
	rejoinMost = 15 * time.Second       // the longest pause between attempts at those that are missing
	seedMost   = 5 * time.Minute        // the same for addresses where nobody was ever met: they may be behind a line that costs
)

// ring is this node's membership in the gossip of one unit.
type ring struct {
	self  string
	place note.Place // but for its seeds
	list  *memberlist.Memberlist

	near *net.IPNet // when not nil, nobody outside is a neighbour

	mu    sync.Mutex
	seeds []string
	views views
	tried map[string]*trial // seeds that were never met
}

// trial is what is known of an address where nobody was ever met.
type trial struct {
	pause time.Duration
	next  time.Time
}

// unitKey derives the key of a unit from the cluster's, so that units cannot read each other's messages by mistake.
func unitKey(cluster []byte, unit string) ([]byte, error) {
	return hkdf.Key(sha256.New, cluster, nil, "unit "+unit, sha256.Size)
}

// startRing listens for neighbours and begins to gossip with those of the place.
func startRing(ctx context.Context, cfg Config, place note.Place) (*ring, error) {
	key, err := unitKey(cfg.Key, place.Unit)
	if err != nil {
		return nil, fmt.Errorf("derive key of the unit: %w", err)
	}
	r := &ring{self: cfg.NodeName, place: place, seeds: place.Seeds, views: views{}, tried: map[string]*trial{}}
	t, err := listen(ctx, netip.AddrPortFrom(cfg.Address, uint16(place.Port)))
	if err != nil {
		return nil, err
	}
	c := memberlist.DefaultLANConfig()
	c.Name, c.Transport, c.SecretKey, c.Label = cfg.NodeName, t, key, "kedge"
	c.ProbeInterval, c.ProbeTimeout = place.Interval(), place.Interval()/2
	c.GossipInterval, c.PushPullInterval, c.TCPTimeout = place.Interval()/2, time.Minute, 2*dialTime
	c.DeadNodeReclaimTime = askEvery
	c.EnableCompression, c.HandoffQueueDepth = false, maxQueue
	c.Events, c.Logger = r, log.New(lines{cfg.Log}, "", 0)
	c.DNSConfigPath = ""
	if place.Near {
		near, err := nearby(cfg.Address)
		if err != nil {
			return nil, errors.Join(err, t.Shutdown())
		}
		c.CIDRsAllowed, r.near = []net.IPNet{near}, &near
	}
	if r.list, err = memberlist.Create(c); err != nil {
		return nil, errors.Join(fmt.Errorf("start gossip: %w", err), t.Shutdown())
	}
	return r, nil
}

// nearby is the local network of an address of this machine.
func nearby(own netip.Addr) (net.IPNet, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return net.IPNet{}, fmt.Errorf("find the local network: %w", err)
	}
	for _, a := range addresses {
		if p, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(p.IP); ok && ip.Unmap() == own {
				return net.IPNet{IP: p.IP.Mask(p.Mask), Mask: p.Mask}, nil
			}
		}
	}
	return net.IPNet{}, fmt.Errorf("find the local network: %s is no address of this machine", own)
}

// stop says goodbye, so that nobody takes this node for dead, and ends the gossip.
func (r *ring) stop() error {
	return errors.Join(r.list.Leave(goodbye), r.list.Shutdown())
}

// keep asks the machines of lost neighbours, and tries to meet those again that are missing, until ctx is done.
func (r *ring) keep(ctx context.Context) {
	pause := time.Second
	next := time.Now()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		r.ask(ctx)
		if now := time.Now(); !now.Before(next) {
			if r.rejoin() {
				pause = min(2*pause, rejoinMost)
			} else {
				pause = askEvery
			}
			next = now.Add(pause)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// ask finds out whether the machines of lost neighbours still answer: all of those that are due at once.
func (r *ring) ask(ctx context.Context) {
	r.mu.Lock()
	r.views.tidy(time.Now())
	due := r.views.due(time.Now())
	r.mu.Unlock()
	var calls sync.WaitGroup
	for name, address := range due {
		calls.Go(func() {
			answers := answers(ctx, address.String())
			r.mu.Lock()
			defer r.mu.Unlock()
			r.views.asked(name, answers, time.Now())
		})
	}
	calls.Wait()
}

// answers says whether the machine behind an address lives: a refusal is an answer.
func answers(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		_ = c.Close()
	}
	return err == nil || errors.Is(err, syscall.ECONNREFUSED)
}

// rejoin tries one address each that is missing: of the seeds and of those met before. It says whether any is missing.
func (r *ring) rejoin() bool {
	present := map[string]bool{}
	for _, m := range r.list.Members() {
		present[net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port)))] = true
	}
	missing := map[string]bool{}
	r.mu.Lock()
	for _, seed := range r.seeds {
		if address := net.JoinHostPort(seed, strconv.Itoa(r.place.Port)); present[address] {
			delete(r.tried, address)
		} else if r.worthTrying(seed, address, time.Now()) {
			missing[address] = true
		}
	}
	for _, address := range r.views.missing() {
		missing[address.String()] = true
	}
	r.mu.Unlock()
	found := false
	for _, address := range slices.Sorted(maps.Keys(missing))[:min(len(missing), 2*watched)] {
		if present[address] {
			continue
		}
		found = true
		_, _ = r.list.Join([]string{address}) // it logs; the next attempt comes
	}
	return found
}

// worthTrying says whether a seed is to be asked now: less and less often while nobody is there. The lock is held.
func (r *ring) worthTrying(seed, address string, now time.Time) bool {
	if ip := net.ParseIP(seed); r.near != nil && (ip == nil || !r.near.Contains(ip)) {
		return false
	}
	t := r.tried[address]
	if t == nil {
		t = &trial{pause: time.Second}
		r.tried[address] = t
	}
	if now.Before(t.next) {
		return false
	}
	t.pause = min(2*t.pause, seedMost)
	t.next = now.Add(t.pause)
	return true
}

// NotifyJoin implements memberlist.EventDelegate.
func (r *ring) NotifyJoin(n *memberlist.Node) {
	address, ok := netip.AddrFromSlice(n.Addr)
	if !ok || n.Name == r.self {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.views.joined(n.Name, netip.AddrPortFrom(address.Unmap(), n.Port))
}

// NotifyUpdate implements memberlist.EventDelegate.
func (r *ring) NotifyUpdate(n *memberlist.Node) { r.NotifyJoin(n) }

// NotifyLeave implements memberlist.EventDelegate.
func (r *ring) NotifyLeave(n *memberlist.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.State == memberlist.StateLeft {
		r.views.left(n.Name, time.Now())
		return
	}
	r.views.lost(n.Name, time.Now())
}

// move takes up other seeds; it returns false when something else is different too.
func (r *ring) move(to note.Place) bool {
	p := r.place
	if to.Unit != p.Unit || to.Port != p.Port || to.Probe != p.Probe || to.Near != p.Near || len(to.Seeds) == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.seeds, to.Seeds) {
		clear(r.tried)
	}
	r.seeds = to.Seeds
	return true
}

// report is what this node says of its neighbours now.
func (r *ring) report() note.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.views.report(r.self)
}

// counts says how many neighbours answer, and how many do not.
func (r *ring) counts() (alive, missing int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.views.counts()
}

// lines turns memberlist's log into ours; nothing in it needs an operator.
type lines struct{ log *slog.Logger }

// Write logs one line.
func (l lines) Write(p []byte) (int, error) {
	l.log.Debug("gossip", "line", string(bytes.TrimSpace(p)))
	return len(p), nil
}
