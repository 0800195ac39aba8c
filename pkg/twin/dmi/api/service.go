// Package api holds the messages and services of the device mapper interface. On the wire they are those of the family, whose package is
// called v1beta1; here they have a name of their own, because the kubelet's device plugins have messages of that name too and one process
// can register a name once. api.pb.go is generated from the messages' descriptors. Rooms of twin import it.
package api

import (
	"context"

	"google.golang.org/grpc"
)

// Names of the services on the wire.
const (
	managerService = "v1beta1.DeviceManagerService"
	mapperService  = "v1beta1.DeviceMapperService"
)

// ManagerServer is the node's end: what drivers call.
type ManagerServer interface {
	MapperRegister(context.Context, *MapperRegisterRequest) (*MapperRegisterResponse, error)
	ReportDeviceStatus(context.Context, *ReportDeviceStatusRequest) (*ReportDeviceStatusResponse, error)
	ReportDeviceStates(context.Context, *ReportDeviceStatesRequest) (*ReportDeviceStatesResponse, error)
}

// MapperServer is the driver's end: what the node calls.
type MapperServer interface {
	deviceCalls
	modelCalls
}

type deviceCalls interface {
	RegisterDevice(context.Context, *RegisterDeviceRequest) (*RegisterDeviceResponse, error)
	UpdateDevice(context.Context, *UpdateDeviceRequest) (*UpdateDeviceResponse, error)
	RemoveDevice(context.Context, *RemoveDeviceRequest) (*RemoveDeviceResponse, error)
	GetDevice(context.Context, *GetDeviceRequest) (*GetDeviceResponse, error)
}

type modelCalls interface {
	CreateDeviceModel(context.Context, *CreateDeviceModelRequest) (*CreateDeviceModelResponse, error)
	UpdateDeviceModel(context.Context, *UpdateDeviceModelRequest) (*UpdateDeviceModelResponse, error)
	RemoveDeviceModel(context.Context, *RemoveDeviceModelRequest) (*RemoveDeviceModelResponse, error)
}

// method describes one call to gRPC.
func method[S, Q, A any](service, name string, do func(S, context.Context, *Q) (*A, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		request := new(Q)
		if err := decode(request); err != nil {
			return nil, err
		}
		server := srv.(S) // grpc: RegisterService has checked it
		if intercept == nil {
			return do(server, ctx, request)
		}
		info := &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + service + "/" + name}
		return intercept(ctx, request, info, func(ctx context.Context, r any) (any, error) {
			return do(server, ctx, r.(*Q)) // grpc: what was decoded above
		})
	}}
}

// RegisterManager serves the node's end.
func RegisterManager(r grpc.ServiceRegistrar, s ManagerServer) {
	r.RegisterService(&grpc.ServiceDesc{ServiceName: managerService, HandlerType: (*ManagerServer)(nil), Metadata: "api.proto", Methods: []grpc.MethodDesc{
		method(managerService, "MapperRegister", ManagerServer.MapperRegister),
		method(managerService, "ReportDeviceStatus", ManagerServer.ReportDeviceStatus),
		method(managerService, "ReportDeviceStates", ManagerServer.ReportDeviceStates),
	}}, s)
}

// RegisterMapper serves the driver's end.
func RegisterMapper(r grpc.ServiceRegistrar, s MapperServer) {
	r.RegisterService(&grpc.ServiceDesc{ServiceName: mapperService, HandlerType: (*MapperServer)(nil), Metadata: "api.proto", Methods: []grpc.MethodDesc{
		method(mapperService, "RegisterDevice", MapperServer.RegisterDevice),
		method(mapperService, "UpdateDevice", MapperServer.UpdateDevice),
		method(mapperService, "RemoveDevice", MapperServer.RemoveDevice),
		method(mapperService, "GetDevice", MapperServer.GetDevice),
		method(mapperService, "CreateDeviceModel", MapperServer.CreateDeviceModel),
		method(mapperService, "UpdateDeviceModel", MapperServer.UpdateDeviceModel),
		method(mapperService, "RemoveDeviceModel", MapperServer.RemoveDeviceModel),
	}}, s)
}

func call[Q, A any](ctx context.Context, conn grpc.ClientConnInterface, service, name string, request *Q) (*A, error) {
	answer := new(A)
	if err := conn.Invoke(ctx, "/"+service+"/"+name, request, answer, grpc.StaticMethod()); err != nil {
		return nil, err
	}
	return answer, nil
}

// Manager calls the node.
type Manager struct{ Conn grpc.ClientConnInterface }

// MapperRegister takes up a driver.
func (m Manager) MapperRegister(ctx context.Context, r *MapperRegisterRequest) (*MapperRegisterResponse, error) {
	return call[MapperRegisterRequest, MapperRegisterResponse](ctx, m.Conn, managerService, "MapperRegister", r)
}

// ReportDeviceStatus reports twins.
func (m Manager) ReportDeviceStatus(ctx context.Context, r *ReportDeviceStatusRequest) (*ReportDeviceStatusResponse, error) {
	return call[ReportDeviceStatusRequest, ReportDeviceStatusResponse](ctx, m.Conn, managerService, "ReportDeviceStatus", r)
}

// ReportDeviceStates reports how a device is.
func (m Manager) ReportDeviceStates(ctx context.Context, r *ReportDeviceStatesRequest) (*ReportDeviceStatesResponse, error) {
	return call[ReportDeviceStatesRequest, ReportDeviceStatesResponse](ctx, m.Conn, managerService, "ReportDeviceStates", r)
}

// Mapper calls a driver. It has no GetDevice: drivers of the family end when they are asked.
type Mapper struct{ Conn grpc.ClientConnInterface }

// RegisterDevice gives the driver a device.
func (m Mapper) RegisterDevice(ctx context.Context, r *RegisterDeviceRequest) error {
	_, err := call[RegisterDeviceRequest, RegisterDeviceResponse](ctx, m.Conn, mapperService, "RegisterDevice", r)
	return err
}

// UpdateDevice changes a device.
func (m Mapper) UpdateDevice(ctx context.Context, r *UpdateDeviceRequest) error {
	_, err := call[UpdateDeviceRequest, UpdateDeviceResponse](ctx, m.Conn, mapperService, "UpdateDevice", r)
	return err
}

// RemoveDevice takes a device away.
func (m Mapper) RemoveDevice(ctx context.Context, r *RemoveDeviceRequest) error {
	_, err := call[RemoveDeviceRequest, RemoveDeviceResponse](ctx, m.Conn, mapperService, "RemoveDevice", r)
	return err
}

// CreateDeviceModel gives the driver a model.
func (m Mapper) CreateDeviceModel(ctx context.Context, r *CreateDeviceModelRequest) error {
	_, err := call[CreateDeviceModelRequest, CreateDeviceModelResponse](ctx, m.Conn, mapperService, "CreateDeviceModel", r)
	return err
}

// UpdateDeviceModel changes a model.
func (m Mapper) UpdateDeviceModel(ctx context.Context, r *UpdateDeviceModelRequest) error {
	_, err := call[UpdateDeviceModelRequest, UpdateDeviceModelResponse](ctx, m.Conn, mapperService, "UpdateDeviceModel", r)
	return err
}

// RemoveDeviceModel takes a model away.
func (m Mapper) RemoveDeviceModel(ctx context.Context, r *RemoveDeviceModelRequest) error {
	_, err := call[RemoveDeviceModelRequest, RemoveDeviceModelResponse](ctx, m.Conn, mapperService, "RemoveDeviceModel", r)
	return err
}
