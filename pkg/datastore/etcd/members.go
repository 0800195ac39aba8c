package etcd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// ErrBusy says that the cluster cannot take a member now; a later attempt may succeed.
var ErrBusy = errors.New("the other servers cannot take another one now")

// memberName is the node's name with a random end, which the directory keeps: a server that is installed anew is another member.
func memberName(dir, node string) (string, error) {
	path := filepath.Join(dir, "name")
	kept, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(kept)) != "" {
		return strings.TrimSpace(string(kept)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read etcd member name: %w", err)
	}
	random := make([]byte, 4)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	name := node + "-" + hex.EncodeToString(random)
	if err := os.WriteFile(path, []byte(name+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep etcd member name: %w", err)
	}
	return name, nil
}

// NodeOf is the node that a member of this name runs on.
func NodeOf(member string) string {
	if i := strings.LastIndexByte(member, '-'); i > 0 {
		return member[:i]
	}
	return member
}

func nodesOf(s *etcdserver.EtcdServer) []string {
	var out []string
	for _, one := range s.Cluster().Members() {
		out = append(out, NodeOf(one.Name))
	}
	slices.Sort(out)
	return out
}

// aloneFile says that this member had no others when it ran last.
const aloneFile = "alone"

func (m *Member) wasAlone() bool {
	_, err := os.Stat(filepath.Join(m.cfg.Dir, aloneFile))
	return err == nil
}

// noteAlone keeps for the next start whether there are others; without the note that is only slower.
func (m *Member) noteAlone(alone bool) {
	path := filepath.Join(m.cfg.Dir, aloneFile)
	switch {
	case alone && !m.wasAlone():
		_ = os.WriteFile(path, nil, 0o600)
	case !alone && m.wasAlone():
		_ = os.Remove(path)
	}
}

// tend keeps the members in order until ctx is done: the leader lets learners vote that have caught up, and everybody says where it
// is reached now.
func (m *Member) tend(ctx context.Context, s *etcdserver.EtcdServer) {
	tick := time.NewTicker(upkeep)
	defer tick.Stop()
	told := false
	for {
		switch {
		case s.Leader() == 0:
			if !told {
				m.cfg.Log.Warn("the datastore has no leader: more than half of the servers must run and reach each other", "servers", nodesOf(s))
			}
			told = true
		case told:
			m.cfg.Log.Info("the datastore has a leader again")
			told = false
		}
		if s.Leader() == s.MemberID() {
			m.promote(ctx, s)
		}
		m.move(ctx, s)
		m.noteAlone(len(s.Cluster().Members()) == 1)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (m *Member) promote(ctx context.Context, s *etcdserver.EtcdServer) {
	for _, one := range s.Cluster().Members() {
		if !one.IsLearner || one.Name == "" {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, upkeep)
		if _, err := s.PromoteMember(ctx, uint64(one.ID)); err == nil {
			m.cfg.Log.Info("a server joined the datastore", "server", NodeOf(one.Name))
		}
		cancel()
	}
}

// move tells the others a new address of this machine.
func (m *Member) move(ctx context.Context, s *etcdserver.EtcdServer) {
	own := s.Cluster().Member(s.MemberID())
	if own == nil || own.IsLearner || s.Leader() == 0 || slices.Equal(own.PeerURLs, []string{m.cfg.PeerURL}) {
		return
	}
	moved := membership.Member{ID: own.ID, RaftAttributes: membership.RaftAttributes{PeerURLs: []string{m.cfg.PeerURL}}}
	ctx, cancel := context.WithTimeout(ctx, upkeep)
	defer cancel()
	if _, err := s.UpdateMember(ctx, moved); err == nil {
		m.cfg.Log.Info("this server has another address in the datastore", "url", m.cfg.PeerURL)
	}
}

// Admit makes room for a member on another server and returns all members as name=URL,name=URL. One that was there before under the
// name of the same node goes, unless it runs. It returns ErrBusy when a later attempt may succeed.
func (m *Member) Admit(ctx context.Context, name, peerURL string) (string, error) {
	s := m.server.Load()
	if s == nil || s.Leader() == 0 || s.IsLearner() {
		return "", ErrBusy
	}
	urls, err := types.NewURLs([]string{peerURL})
	if err != nil {
		return "", fmt.Errorf("peer URL: %w", err)
	}
	for _, old := range s.Cluster().Members() {
		switch {
		case old.Name == name || old.Name == "" && slices.Equal(old.PeerURLs, []string{peerURL}):
			return describe(s.Cluster().Members(), name, peerURL), nil // asked before
		case NodeOf(old.Name) != NodeOf(name) && !slices.Contains(old.PeerURLs, peerURL):
			continue
		case m.runs(ctx, old):
			return "", fmt.Errorf("a server named %s runs at %s: give this one another --node-name or --node-ip", NodeOf(old.Name), strings.Join(old.PeerURLs, ","))
		}
		if _, err := s.RemoveMember(ctx, uint64(old.ID)); err != nil {
			return "", fmt.Errorf("%w: %w", ErrBusy, err)
		}
		m.cfg.Log.Info("a server that is installed anew takes its place in the datastore", "server", NodeOf(name))
	}
	if slices.ContainsFunc(s.Cluster().Members(), func(one *membership.Member) bool { return one.IsLearner }) {
		return "", ErrBusy // one at a time
	}
	now := time.Now()
	members, err := s.AddMember(ctx, *membership.NewMemberAsLearner("", urls, "", &now))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return describe(members, name, peerURL), nil
}

// describe lists members as etcd's --initial-cluster does; the one at peerURL has no name before it starts.
func describe(members []*membership.Member, name, peerURL string) string {
	var out []string
	for _, one := range members {
		for _, u := range one.PeerURLs {
			if u == peerURL {
				out = append(out, name+"="+u)
			} else if one.Name != "" {
				out = append(out, one.Name+"="+u)
			} else {
				out = append(out, one.ID.String()+"="+u)
			}
		}
	}
	return strings.Join(out, ",")
}

// runs says whether a member answers with a certificate of this cluster.
func (m *Member) runs(ctx context.Context, one *membership.Member) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	own, err := tls.LoadX509KeyPair(m.cfg.CertFile, m.cfg.KeyFile)
	if err != nil {
		return false
	}
	for _, text := range one.PeerURLs {
		u, err := url.Parse(text)
		if err != nil {
			continue
		}
		// whoever listens there: the certificate is of no interest
		d := tls.Dialer{NetDialer: &net.Dialer{}, Config: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{own}}}
		if c, err := d.DialContext(ctx, "tcp", u.Host); err == nil {
			_ = c.Close()
			return true
		}
	}
	return false
}

// Remove takes the member of a node out of the cluster; a node without one is no error.
func (m *Member) Remove(ctx context.Context, node string) error {
	s := m.server.Load()
	if s == nil {
		return errors.New("etcd does not run")
	}
	members := s.Cluster().Members()
	for _, one := range members {
		if NodeOf(one.Name) != node || len(members) == 1 { // the last one is the datastore
			continue
		}
		if _, err := s.RemoveMember(ctx, uint64(one.ID)); err != nil {
			return fmt.Errorf("remove %s from the datastore: %w", node, err)
		}
		m.cfg.Log.Info("a server left the datastore", "server", node)
	}
	return nil
}
