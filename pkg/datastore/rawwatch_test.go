package datastore_test

import (
	"context"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// watchStream is a watch without the client library, which reads ahead and hides what the server sends.
type watchStream struct{ pb.Watch_WatchClient }

func rawWatch(t testing.TB, conn *grpc.ClientConn, ctx context.Context) watchStream {
	t.Helper()
	ws, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return watchStream{ws}
}

// create adds a watch of everything that starts with prefix and awaits the confirmation.
func (w watchStream) create(t testing.TB, prefix string, rev int64) {
	t.Helper()
	end := []byte(prefix)
	end[len(end)-1]++
	err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(prefix), RangeEnd: end, StartRevision: rev, PrevKv: true,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if resp := w.recv(t); !resp.Created || resp.Canceled {
		t.Fatalf("watch was not created: %v", resp)
	}
}

func (w watchStream) requestProgress(t testing.TB) {
	t.Helper()
	err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	if err != nil {
		t.Fatal(err)
	}
}

func (w watchStream) recv(t testing.TB) *pb.WatchResponse {
	t.Helper()
	resp, err := w.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
