package datastore

import (
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/kedge-io/kedge/pkg/socket"
)

// stopGrace is how long requests may take to end; watches never end by themselves.
const stopGrace = 2 * time.Second

func stopServer(server *grpc.Server) {
	timer := time.AfterFunc(stopGrace, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}

// newGRPC limits requests as etcd does.
func newGRPC() *grpc.Server {
	return grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Hour, Timeout: 20 * time.Second}),
		grpc.MaxRecvMsgSize(2<<20), // 1.5 MiB for the request, the rest for its wrapping
		grpc.MaxSendMsgSize(1<<31-1),
		// the API server makes a connection for each resource: keep what an idle one costs small
		grpc.SharedWriteBuffer(true),
		grpc.ReadBufferSize(8<<10),
	)
}

// listen makes the socket. A socket without a listener behind it is a left-over of a crash; one with a listener is an error.
func listen(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return nil, errors.Join(fmt.Errorf("another process answers on %s: stop it first", path), conn.Close())
	}
	return socket.Listen(path)
}
