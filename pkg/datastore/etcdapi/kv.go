package etcdapi

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
	"github.com/kedge-io/kedge/pkg/datastore/mvcc"
)

// Range implements etcdserverpb.KVServer.
func (s *Server) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if len(r.Key) == 0 {
		return nil, rpctypes.ErrGRPCEmptyKey
	}
	resp, err := s.rangeAt(r, max(r.Revision, 0))
	return resp, s.toStatus(err)
}

// rangeAt reads at revision at, 0 for now.
func (s *Server) rangeAt(r *pb.RangeRequest, at int64) (*pb.RangeResponse, error) {
	key, end := string(r.Key), string(r.RangeEnd)
	if r.CountOnly {
		page, err := s.store.Count(key, end, at)
		return &pb.RangeResponse{Header: s.header(page.Rev), Count: page.Count}, err
	}
	limit := r.Limit
	arranged := needsArranging(r)
	if arranged {
		limit = 0
	}
	values := !r.KeysOnly || arranged && r.SortTarget == pb.RangeRequest_VALUE
	kvs, page, err := s.store.Range(key, end, at, limit, values)
	if err != nil {
		return nil, err
	}
	resp := &pb.RangeResponse{Header: s.header(page.Rev), Kvs: kvs, Count: page.Count, More: int64(len(kvs)) < page.Count}
	if arranged {
		resp.Kvs, resp.More = arrange(r, kvs)
	}
	return resp, nil
}

// needsArranging tells whether the answer is more than a range of keys in their order.
func needsArranging(r *pb.RangeRequest) bool {
	byKey := r.SortTarget == pb.RangeRequest_KEY && r.SortOrder != pb.RangeRequest_DESCEND
	sorted := r.SortOrder != pb.RangeRequest_NONE || r.SortTarget != pb.RangeRequest_KEY
	filtered := r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
	return filtered || (sorted && !byKey)
}

// arrange filters, sorts and cuts as the request says, and tells whether it cut anything off.
func arrange(r *pb.RangeRequest, kvs []*mvccpb.KeyValue) (arranged []*mvccpb.KeyValue, more bool) {
	outside := func(v, low, high int64) bool { return v < low || (high != 0 && v > high) }
	kvs = slices.DeleteFunc(kvs, func(kv *mvccpb.KeyValue) bool {
		return outside(kv.ModRevision, r.MinModRevision, r.MaxModRevision) ||
			outside(kv.CreateRevision, r.MinCreateRevision, r.MaxCreateRevision)
	})
	compare := func(a, b *mvccpb.KeyValue) int {
		switch r.SortTarget {
		case pb.RangeRequest_VERSION:
			return cmp.Compare(a.Version, b.Version)
		case pb.RangeRequest_CREATE:
			return cmp.Compare(a.CreateRevision, b.CreateRevision)
		case pb.RangeRequest_MOD:
			return cmp.Compare(a.ModRevision, b.ModRevision)
		case pb.RangeRequest_VALUE:
			return bytes.Compare(a.Value, b.Value)
		}
		return bytes.Compare(a.Key, b.Key)
	}
	slices.SortStableFunc(kvs, func(a, b *mvccpb.KeyValue) int {
		if r.SortOrder == pb.RangeRequest_DESCEND {
			return compare(b, a)
		}
		return compare(a, b)
	})
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		kvs, more = kvs[:r.Limit], true
	}
	if r.KeysOnly {
		for _, kv := range kvs {
			kv.Value = nil
		}
	}
	return kvs, more
}

// Put implements etcdserverpb.KVServer.
func (s *Server) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	resp, err := s.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op}})
	if err != nil {
		return nil, err
	}
	return resp.Responses[0].GetResponsePut(), nil
}

// DeleteRange implements etcdserverpb.KVServer.
func (s *Server) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	resp, err := s.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op}})
	if err != nil {
		return nil, err
	}
	return resp.Responses[0].GetResponseDeleteRange(), nil
}

// Compact implements etcdserverpb.KVServer. The states before the revision cannot be read any more when
// it returns; the space comes back later.
func (s *Server) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	if err := s.store.Compact(ctx, r.Revision); err != nil {
		return nil, s.toStatus(err)
	}
	rev, _ := s.store.Revisions()
	return &pb.CompactionResponse{Header: s.header(rev)}, nil
}

// Txn implements etcdserverpb.KVServer. Each write of a transaction gets a revision of its own; etcd
// gives them all the same.
func (s *Server) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	size, err := checkTxn(r)
	if err != nil {
		return nil, err
	}
	var resp *pb.TxnResponse
	err = s.store.Do(ctx, size, func(tx *mvcc.Tx) (err error) {
		resp, err = s.apply(tx, r)
		return err
	})
	if err != nil {
		return nil, s.toStatus(err)
	}
	return resp, nil
}

// apply decides and stages a transaction.
func (s *Server) apply(tx *mvcc.Tx, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp := &pb.TxnResponse{Succeeded: true}
	for _, c := range r.Compare {
		holds, err := s.holds(tx, c)
		if err != nil {
			return nil, err
		}
		if !holds {
			resp.Succeeded = false
			break
		}
	}
	ops := r.Success
	if !resp.Succeeded {
		ops = r.Failure
	}
	for _, op := range ops {
		answer, err := s.applyOp(tx, op)
		if err != nil {
			return nil, err
		}
		resp.Responses = append(resp.Responses, answer)
	}
	resp.Header = s.header(tx.Rev())
	return resp, nil
}

func (s *Server) applyOp(tx *mvcc.Tx, op *pb.RequestOp) (*pb.ResponseOp, error) {
	switch r := op.Request.(type) {
	case *pb.RequestOp_RequestPut:
		resp, err := s.applyPut(tx, r.RequestPut)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: resp}}, err
	case *pb.RequestOp_RequestDeleteRange:
		resp, err := s.applyDelete(tx, r.RequestDeleteRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: resp}}, err
	case *pb.RequestOp_RequestRange:
		resp, err := s.applyRange(tx, r.RequestRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: resp}}, err
	case *pb.RequestOp_RequestTxn:
		resp, err := s.apply(tx, r.RequestTxn)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}}, err
	}
	return nil, rpctypes.ErrGRPCKeyNotFound
}

func (s *Server) applyPut(tx *mvcc.Tx, r *pb.PutRequest) (*pb.PutResponse, error) {
	value, lease := r.Value, r.Lease
	if r.IgnoreValue || r.IgnoreLease {
		old, err := tx.Get(string(r.Key))
		if err != nil {
			return nil, err
		}
		if old == nil {
			return nil, rpctypes.ErrGRPCKeyNotFound
		}
		if r.IgnoreValue {
			value = old.Value
		}
		if r.IgnoreLease {
			lease = old.Lease
		}
	}
	prev, err := tx.Put(string(r.Key), value, lease)
	if err != nil {
		return nil, err
	}
	resp := &pb.PutResponse{Header: s.header(tx.Rev())}
	if r.PrevKv {
		resp.PrevKv = prev
	}
	return resp, nil
}

func (s *Server) applyDelete(tx *mvcc.Tx, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	keys, err := tx.Keys(string(r.Key), string(r.RangeEnd))
	if err != nil {
		return nil, err
	}
	resp := &pb.DeleteRangeResponse{}
	for _, key := range keys {
		prev, err := tx.Delete(key)
		if err != nil {
			return nil, err
		}
		resp.Deleted++
		if r.PrevKv {
			resp.PrevKvs = append(resp.PrevKvs, prev)
		}
	}
	resp.Header = s.header(tx.Rev())
	return resp, nil
}

// applyRange reads the state within the transaction, what it has written so far included.
func (s *Server) applyRange(tx *mvcc.Tx, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if r.Revision > 0 {
		return s.rangeAt(r, r.Revision)
	}
	keys, err := tx.Keys(string(r.Key), string(r.RangeEnd))
	if err != nil {
		return nil, err
	}
	resp := &pb.RangeResponse{Header: s.header(tx.Rev()), Count: int64(len(keys))}
	if r.CountOnly {
		return resp, nil
	}
	for _, key := range keys {
		kv, err := tx.Get(key)
		if err != nil {
			return nil, err
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	if r.Limit > 0 || r.KeysOnly || needsArranging(r) {
		resp.Kvs, resp.More = arrange(r, resp.Kvs)
	}
	return resp, nil
}

// holds evaluates one comparison; a key that does not exist has revisions, version and lease 0, and
// compares its value as false.
func (s *Server) holds(tx *mvcc.Tx, c *pb.Compare) (bool, error) {
	keys := []string{string(c.Key)}
	if len(c.RangeEnd) > 0 {
		var err error
		if keys, err = tx.Keys(string(c.Key), string(c.RangeEnd)); err != nil {
			return false, err
		}
		if len(keys) == 0 { // nothing in the range compares as one key that does not exist
			return c.Target != pb.Compare_VALUE && compareHolds(c, keyindex.Rev{}, nil), nil
		}
	}
	for _, key := range keys {
		rev, exists := tx.Head(key)
		if !exists {
			rev = keyindex.Rev{}
		}
		var value []byte
		if c.Target == pb.Compare_VALUE {
			kv, err := tx.Get(key)
			if err != nil || kv == nil {
				return false, err
			}
			value = kv.Value
		}
		if !compareHolds(c, rev, value) {
			return false, nil
		}
	}
	return true, nil
}

func compareHolds(c *pb.Compare, rev keyindex.Rev, value []byte) bool {
	var order int
	switch c.Target {
	case pb.Compare_VALUE:
		order = bytes.Compare(value, c.GetValue())
	case pb.Compare_MOD:
		order = cmp.Compare(rev.Mod, c.GetModRevision())
	case pb.Compare_CREATE:
		order = cmp.Compare(rev.Create, c.GetCreateRevision())
	case pb.Compare_VERSION:
		order = cmp.Compare(rev.Version, c.GetVersion())
	case pb.Compare_LEASE:
		order = cmp.Compare(rev.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	case pb.Compare_LESS:
		return order < 0
	}
	return false
}

const maxOps = 128 // etcd's default limit of operations in a transaction

// checkTxn refuses what etcd refuses before it runs anything, and returns the bytes to be written.
func checkTxn(r *pb.TxnRequest) (size int, err error) {
	if max(len(r.Compare), len(r.Success), len(r.Failure)) > maxOps {
		return 0, rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.Compare {
		if len(c.Key) == 0 {
			return 0, rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		n, err := checkOps(ops)
		if err != nil {
			return 0, err
		}
		size += n
	}
	if size > maxRequestBytes {
		return 0, rpctypes.ErrGRPCRequestTooLarge
	}
	return size, nil
}

func checkOps(ops []*pb.RequestOp) (size int, err error) {
	puts := map[string]bool{}
	for _, op := range ops {
		var key []byte
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			key = r.RequestPut.Key
			if puts[string(key)] {
				return 0, rpctypes.ErrGRPCDuplicateKey
			}
			puts[string(key)] = true
			size += len(key) + len(r.RequestPut.Value)
		case *pb.RequestOp_RequestDeleteRange:
			key = r.RequestDeleteRange.Key
		case *pb.RequestOp_RequestRange:
			key = r.RequestRange.Key
		case *pb.RequestOp_RequestTxn:
			n, err := checkTxn(r.RequestTxn)
			if err != nil {
				return 0, err
			}
			size += n
			continue
		}
		if len(key) == 0 {
			return 0, rpctypes.ErrGRPCEmptyKey
		}
	}
	return size, nil
}
