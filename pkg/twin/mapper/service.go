package mapper

import (
	"context"
	"fmt"

	dmi "github.com/kedge-io/kedge/pkg/twin/dmi/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/twin/dmi/wire"
	"github.com/kedge-io/kedge/pkg/twin/mapper/driver"
	"github.com/kedge-io/kedge/pkg/twin/model"
)

// RegisterDevice starts to drive a device.
func (m *Mapper) RegisterDevice(_ context.Context, r *dmi.RegisterDeviceRequest) (*dmi.RegisterDeviceResponse, error) {
	d := r.GetDevice()
	if err := m.takeLocked(d); err != nil {
		return nil, err
	}
	return &dmi.RegisterDeviceResponse{DeviceName: d.GetName(), DeviceNamespace: d.GetNamespace()}, nil
}

// UpdateDevice takes over what has changed. A device of which only desired values changed goes on without a break.
func (m *Mapper) UpdateDevice(_ context.Context, r *dmi.UpdateDeviceRequest) (*dmi.UpdateDeviceResponse, error) {
	if err := m.takeLocked(r.GetDevice()); err != nil {
		return nil, err
	}
	return &dmi.UpdateDeviceResponse{}, nil
}

// RemoveDevice ends the driving of a device.
func (m *Mapper) RemoveDevice(_ context.Context, r *dmi.RemoveDeviceRequest) (*dmi.RemoveDeviceResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := key(r.GetDeviceNamespace(), r.GetDeviceName())
	if w := m.workers[k]; w != nil {
		w.stop()
		delete(m.workers, k)
	}
	return &dmi.RemoveDeviceResponse{}, nil
}

// CreateDeviceModel comes before the first device of a model.
func (m *Mapper) CreateDeviceModel(_ context.Context, r *dmi.CreateDeviceModelRequest) (*dmi.CreateDeviceModelResponse, error) {
	m.putModel(r.GetModel())
	return &dmi.CreateDeviceModelResponse{DeviceModelName: r.GetModel().GetName(), DeviceModelNamespace: r.GetModel().GetNamespace()}, nil
}

// UpdateDeviceModel changes a model; devices take it over when they change.
func (m *Mapper) UpdateDeviceModel(_ context.Context, r *dmi.UpdateDeviceModelRequest) (*dmi.UpdateDeviceModelResponse, error) {
	m.putModel(r.GetModel())
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.workers {
		if key(w.message.GetNamespace(), w.message.GetSpec().GetDeviceModelReference()) != key(r.GetModel().GetNamespace(), r.GetModel().GetName()) {
			continue
		}
		message := w.message
		if err := m.restart(message); err != nil {
			m.cfg.Log.Warn("device cannot be driven", "device", key(message.GetNamespace(), message.GetName()), "error", err)
		}
	}
	return &dmi.UpdateDeviceModelResponse{}, nil
}

// RemoveDeviceModel forgets a model.
func (m *Mapper) RemoveDeviceModel(_ context.Context, r *dmi.RemoveDeviceModelRequest) (*dmi.RemoveDeviceModelResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.models, key(r.GetModelNamespace(), r.GetModelName()))
	return &dmi.RemoveDeviceModelResponse{}, nil
}

// GetDevice returns a device as this mapper has it.
func (m *Mapper) GetDevice(_ context.Context, r *dmi.GetDeviceRequest) (*dmi.GetDeviceResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.workers[key(r.GetDeviceNamespace(), r.GetDeviceName())]
	if w == nil {
		return nil, status.Error(codes.NotFound, "this mapper has no such device")
	}
	return &dmi.GetDeviceResponse{Device: w.message}, nil
}

func (m *Mapper) putModel(model *dmi.DeviceModel) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.models[key(model.GetNamespace(), model.GetName())] = model
}

func (m *Mapper) takeLocked(d *dmi.Device) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.take(d); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return nil
}

// take wants the lock.
func (m *Mapper) take(d *dmi.Device) error {
	w := m.workers[key(d.GetNamespace(), d.GetName())]
	if w == nil || !sameButDesired(w.message, d) {
		return m.restart(d)
	}
	w.message = d
	desired := map[string]*v1beta1.Value{}
	for _, p := range d.GetSpec().GetProperties() {
		desired[p.GetName()] = wire.FromValue(p.GetDesired())
	}
	w.want(desired)
	return nil
}

// restart wants the lock.
func (m *Mapper) restart(d *dmi.Device) error {
	k := key(d.GetNamespace(), d.GetName())
	if w := m.workers[k]; w != nil {
		w.stop()
		delete(m.workers, k)
	}
	cfg, status, err := m.config(d)
	if err != nil {
		return err
	}
	device, err := m.opener.Open(cfg)
	if err != nil {
		return err
	}
	m.workers[k] = startWorker(m, d, cfg, status, device)
	return nil
}

// config is the device in the form for drivers.
func (m *Mapper) config(d *dmi.Device) (driver.Config, v1beta1.Status, error) {
	device, twins, err := wire.FromDevice(d)
	if err != nil {
		return driver.Config{}, twins, err
	}
	known := m.models[key(d.GetNamespace(), d.GetSpec().GetDeviceModelReference())]
	if known == nil {
		return driver.Config{}, twins, fmt.Errorf("model %s is not known", d.GetSpec().GetDeviceModelReference())
	}
	dm := wire.FromModel(known)
	cfg := driver.Config{Namespace: device.Namespace, Name: device.Name, Protocol: device.Spec.Protocol.ConfigData}
	for _, p := range device.Spec.Properties {
		mp, ok := model.Property(dm, p.Name)
		if !ok {
			return cfg, twins, fmt.Errorf("property %s is not in model %s", p.Name, dm.Name)
		}
		cfg.Properties = append(cfg.Properties, driver.Property{
			Name: p.Name, Model: mp, Visitor: p.Visitors.ConfigData, Desired: p.Desired, Collect: driver.Cycle(p.CollectCycle),
			Report: driver.Cycle(p.ReportCycle), Cloud: p.ReportToCloud, Push: p.PushMethod,
		})
	}
	return cfg, twins, nil
}
