package etcdapi

import (
	"context"
	"errors"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kedge-io/kedge/pkg/datastore/keyindex"
	"github.com/kedge-io/kedge/pkg/datastore/watch"
)

// Watch implements etcdserverpb.WatchServer: one goroutine reads the client's requests, this one sends.
func (s *Server) Watch(ws pb.Watch_WatchServer) error {
	stream := s.hub.NewStream()
	defer stream.Close()
	ctx, cancel := context.WithCancelCause(ws.Context())
	defer cancel(nil)
	go func() { cancel(s.receive(ws, stream)) }()
	for {
		deliveries, err := stream.Next(ctx)
		for _, d := range deliveries {
			if err := ws.Send(s.response(d)); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return watchEnd(context.Cause(ctx))
		}
		if err != nil {
			return s.toStatus(err)
		}
	}
}

func watchEnd(cause error) error {
	if errors.Is(cause, io.EOF) {
		return nil
	}
	if errors.Is(cause, context.Canceled) {
		return status.Error(codes.Canceled, "watch is closed")
	}
	return cause
}

// receive acts on the client's requests until there are no more.
func (s *Server) receive(ws pb.Watch_WatchServer, stream *watch.Stream) error {
	var lastID int64
	for {
		msg, err := ws.Recv()
		if err != nil {
			return err
		}
		switch r := msg.RequestUnion.(type) {
		case *pb.WatchRequest_CreateRequest:
			lastID = s.createWatch(stream, r.CreateRequest, lastID)
		case *pb.WatchRequest_CancelRequest:
			stream.Cancel(r.CancelRequest.WatchId)
		case *pb.WatchRequest_ProgressRequest:
			stream.RequestProgress()
		}
	}
}

// createWatch adds a watch with the ID the client chose or the next free one, and returns the last
// number handed out.
func (s *Server) createWatch(stream *watch.Stream, r *pb.WatchCreateRequest, lastID int64) int64 {
	if r.StartRevision < 0 {
		stream.Refuse(keyindex.ErrCompacted)
		return lastID
	}
	if end := string(r.RangeEnd); end != "" && end != "\x00" && string(r.Key) >= end {
		stream.Refuse(watch.ErrEmptyRange)
		return lastID
	}
	opts := watch.Options{
		ID: r.WatchId, Key: string(r.Key), End: string(r.RangeEnd), Start: r.StartRevision,
		PrevKV: r.PrevKv, Progress: r.ProgressNotify,
	}
	if len(r.Key) == 0 { // etcd: no key and no end means everything
		opts.Key = "\x00"
	}
	for _, f := range r.Filters {
		opts.NoPut = opts.NoPut || f == pb.WatchCreateRequest_NOPUT
		opts.NoDelete = opts.NoDelete || f == pb.WatchCreateRequest_NODELETE
	}
	if opts.ID != 0 {
		if !stream.Watch(opts) {
			stream.Refuse(watch.ErrTaken)
		}
		return lastID
	}
	for {
		lastID++
		opts.ID = lastID
		if stream.Watch(opts) {
			return lastID
		}
	}
}

// response is a delivery in etcd's words.
func (s *Server) response(d watch.Delivery) *pb.WatchResponse {
	resp := &pb.WatchResponse{
		Header: s.header(d.Revision), WatchId: d.WatchID, Events: d.Events, CompactRevision: d.CompactRevision,
		Created:  d.Kind == watch.Created || d.Kind == watch.Refused,
		Canceled: d.Kind == watch.Canceled || d.Kind == watch.Refused,
	}
	switch {
	case errors.Is(d.Err, keyindex.ErrCompacted):
		resp.CancelReason = rpctypes.ErrCompacted.Error()
	case d.Err != nil:
		resp.CancelReason = d.Err.Error()
	}
	return resp
}
