package dmi

import (
	"context"
	"fmt"
	"strings"

	dmi "github.com/kedge-io/kedge/pkg/twin/dmi/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kedge-io/kedge/pkg/twin/dmi/wire"
	"github.com/kedge-io/kedge/pkg/twin/hub"
	"github.com/kedge-io/kedge/pkg/twin/merge"
)

// tell brings the driver up to date about the devices, models first, and returns those that it could not be told of.
func (ses *session) tell(client dmi.Mapper, keys []string) (failed []string) {
	before := sum(ses.mapper)
	removed := false
	for i, key := range keys {
		gone, err := ses.tellOne(client, key)
		removed = removed || gone
		if err == nil {
			continue
		}
		failed = append(failed, key)
		if unreachable(err) {
			failed = append(failed, keys[i+1:]...)
			break
		}
		ses.server.cfg.Log.Warn("driver did not take a device", "mapper", ses.mapper.Name, "device", key, "error", err)
	}
	if removed {
		ses.forgetModels(client)
	}
	if sum(ses.mapper) != before {
		ses.save()
	}
	return failed
}

func unreachable(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled
}

// tellOne brings the driver up to date about one device. Nothing is said that the driver knows.
func (ses *session) tellOne(client dmi.Mapper, key string) (gone bool, err error) {
	ctx, cancel := context.WithTimeout(ses.ctx, callTimeout)
	defer cancel()
	v, ok := ses.server.cfg.Hub.Get(key)
	told, known := ses.mapper.Devices[key]
	if !ok || !ses.mine(v) {
		if !known {
			return false, nil
		}
		namespace, name, _ := strings.Cut(key, "/")
		if err := client.RemoveDevice(ctx, &dmi.RemoveDeviceRequest{DeviceName: name, DeviceNamespace: namespace}); err != nil && unreachable(err) {
			return false, err
		}
		delete(ses.mapper.Devices, key)
		return true, nil
	}
	if err := ses.tellModel(ctx, client, v); err != nil {
		return false, fmt.Errorf("model: %w", err)
	}
	now := sum(v.Device.Spec)
	if known && told == now {
		return false, nil
	}
	d, err := wire.Device(v.Device, merge.Status(v.State))
	if err != nil {
		return false, err
	}
	if known {
		err = client.UpdateDevice(ctx, &dmi.UpdateDeviceRequest{Device: d})
	} else {
		err = client.RegisterDevice(ctx, &dmi.RegisterDeviceRequest{Device: d})
	}
	if err != nil {
		return false, err
	}
	ses.mapper.Devices[key] = now
	return false, nil
}

func (ses *session) tellModel(ctx context.Context, client dmi.Mapper, v hub.View) (err error) {
	key, now := hub.Key(v.Model.Namespace, v.Model.Name), sum(v.Model.Spec)
	told, known := ses.mapper.Models[key]
	switch {
	case known && told == now:
		return nil
	case known:
		err = client.UpdateDeviceModel(ctx, &dmi.UpdateDeviceModelRequest{Model: wire.Model(v.Model)})
	default:
		err = client.CreateDeviceModel(ctx, &dmi.CreateDeviceModelRequest{Model: wire.Model(v.Model)})
	}
	if err == nil {
		ses.mapper.Models[key] = now
	}
	return err
}

// forgetModels is best effort: a model too many does no harm.
func (ses *session) forgetModels(client dmi.Mapper) {
	for _, key := range ses.unusedModels() {
		ctx, cancel := context.WithTimeout(ses.ctx, callTimeout)
		namespace, name, _ := strings.Cut(key, "/")
		err := client.RemoveDeviceModel(ctx, &dmi.RemoveDeviceModelRequest{ModelName: name, ModelNamespace: namespace})
		cancel()
		if err != nil && unreachable(err) {
			return
		}
		delete(ses.mapper.Models, key)
	}
}
