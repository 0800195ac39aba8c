package health

import (
	"cmp"
	"context"
	"hash/fnv"
	"log/slog"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kedge-io/kedge/pkg/autonomy/health/verdict"
)

// round looks at all nodes, judges them, and makes the cluster as the verdicts say.
func (c *Controller) round(ctx context.Context, now time.Time) {
	s := c.settings()
	nodes := c.listNodes()
	c.missed(now)
	c.hear(now)
	facts := make([]verdict.Node, 0, len(nodes))
	known := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		known[n.Name] = true
		m := c.records[n.Name]
		if m == nil {
			m = &memory{}
			c.records[n.Name] = m
		}
		m.see(n, c.lease(n.Name), s, now)
		facts = append(facts, m.fact(n, s, now))
	}
	for name := range c.records {
		if !known[name] {
			delete(c.records, name)
		}
	}
	c.ask(ctx, s, facts, now)
	outcome := verdict.Decide(s.rules, facts)
	c.publish(nodes, outcome)
	for _, n := range nodes {
		c.decide(n, outcome.Verdicts[n.Name], now)
	}
	c.metrics.set(outcome)
	if !c.leading.Load() {
		return
	}
	for _, n := range nodes {
		if err := c.enact(ctx, n, c.records[n.Name], now); err != nil && ctx.Err() == nil {
			c.cfg.Log.Debug("verdict on a node will be written again", "node", n.Name, "error", err)
		}
	}
	c.layOut(ctx, s, nodes)
}

// publish lets the API server know. What another server has decided, it has written on the node.
func (c *Controller) publish(nodes []*corev1.Node, outcome verdict.Outcome) {
	p := &policy{evict: map[string]bool{}, unready: map[string]bool{}}
	for _, n := range nodes {
		evict := outcome.Verdicts[n.Name].Evict
		p.evict[n.Name] = evict
		p.unready[n.Name] = evict || readiness(n) == corev1.ConditionFalse
	}
	c.policy.Store(p)
}

// decide remembers a verdict, and says so when it is another one.
func (c *Controller) decide(n *corev1.Node, v verdict.Verdict, now time.Time) {
	m := c.records[n.Name]
	before := m.verdict.State
	if before == v.State {
		m.verdict.Evict = v.Evict
		return
	}
	m.verdict, m.decided = v, now
	switch v.State {
	case verdict.Dead:
		m.dead = true
	case verdict.CutOff:
		m.dead = false
	}
	if before == "" && v.State == verdict.Linked || !c.leading.Load() {
		return
	}
	kind, level := corev1.EventTypeWarning, slog.LevelWarn
	if v.State == verdict.Linked {
		kind, level = corev1.EventTypeNormal, slog.LevelInfo
	}
	c.events.Event(&corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}, kind, "Node"+string(v.State), v.Why)
	c.cfg.Log.Log(context.Background(), level, "node has changed its state", "node", n.Name, "state", v.State, "reason", v.Why)
}

// settings reads the ConfigMap, the one of kube-system first.
func (c *Controller) settings() settings {
	for _, namespace := range []string{"kube-system", "edge-system"} {
		o, found, err := c.configs.store.GetByKey(namespace + "/" + ConfigName)
		m, ok := o.(*corev1.ConfigMap)
		if err != nil || !found || !ok || len(m.Data) == 0 {
			continue
		}
		s, err := readSettings(m.Data)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if c.told[namespace] != text {
			c.told[namespace] = text
			if text != "" {
				c.cfg.Log.Warn("settings are wrong, their defaults are used", "configmap", namespace+"/"+ConfigName, "error", text)
			}
		}
		return s
	}
	return defaults()
}

func (c *Controller) listNodes() []*corev1.Node {
	var nodes []*corev1.Node
	for _, o := range c.nodes.store.List() {
		if n, ok := o.(*corev1.Node); ok {
			nodes = append(nodes, n)
		}
	}
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	return nodes
}

func (c *Controller) lease(node string) *coordinationv1.Lease {
	o, _, err := c.leases.store.GetByKey(corev1.NamespaceNodeLease + "/" + node)
	if lease, ok := o.(*coordinationv1.Lease); ok && err == nil {
		return lease
	}
	return nil
}

// layOut tells the nodes their neighbourhoods, when something has changed that these are made of.
func (c *Controller) layOut(ctx context.Context, s settings, nodes []*corev1.Node) {
	sum, dead := fnv.New64a(), map[string]bool{}
	add := func(text string) { _, _ = sum.Write(append([]byte(text), 0)) } // a hash takes everything
	add(s.probe.String())
	add(string(rune(s.port)))
	for _, n := range nodes {
		dead[n.Name] = c.records[n.Name].dead
		add(n.Name)
		add(string(n.UID))
		add(s.unitOf(n.Labels))
		add(address(n).String())
		if dead[n.Name] {
			add("dead")
		}
		if !s.gossip {
			add("off")
		}
	}
	if sum.Sum64() == c.laidOut {
		return
	}
	all := places(s, nodes, dead)
	for _, n := range nodes {
		text := ""
		if place, ok := all[n.Name]; ok {
			text = place.String()
		}
		if err := c.tell(ctx, n, text); err != nil {
			if ctx.Err() == nil {
				c.cfg.Log.Debug("neighbourhood will be written again", "node", n.Name, "error", err)
			}
			return
		}
	}
	c.laidOut = sum.Sum64()
}
