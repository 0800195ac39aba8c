package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// notedPrefix begins the keys that name the nodes of servers; everything else in the datastore is Kubernetes' own, or kedge's below /kedge/ too.
const notedPrefix = "/kedge/servers/"

// Noted lists the nodes that Note was called for: those that a leader has seen, so that a later one knows which are gone.
func (m *Member) Noted(ctx context.Context) ([]string, error) {
	s := m.server.Load()
	if s == nil {
		return nil, errors.New("etcd does not run")
	}
	r, err := s.Range(ctx, &pb.RangeRequest{Key: []byte(notedPrefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(notedPrefix)), KeysOnly: true})
	if err != nil {
		return nil, fmt.Errorf("read the servers' nodes: %w", err)
	}
	var out []string
	for _, kv := range r.Kvs {
		out = append(out, strings.TrimPrefix(string(kv.Key), notedPrefix))
	}
	return out, nil
}

// Note keeps the name of a server's node in the datastore, or, when it is none any more, forgets it.
func (m *Member) Note(ctx context.Context, node string, is bool) (err error) {
	s := m.server.Load()
	if s == nil {
		return errors.New("etcd does not run")
	}
	key := []byte(notedPrefix + node)
	if is {
		_, err = s.Put(ctx, &pb.PutRequest{Key: key})
	} else {
		_, err = s.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: key})
	}
	if err != nil {
		return fmt.Errorf("note a server's node: %w", err)
	}
	return nil
}
