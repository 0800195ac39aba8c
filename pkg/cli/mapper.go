package cli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/twin"
	"github.com/kedge-io/kedge/pkg/twin/mapper"
)

func (p *program) mapperCommand() *cli.Command {
	const usage = "drive devices of one protocol"
	flags := func(protocol string) []cli.Flag {
		return []cli.Flag{
			&cli.StringFlag{Name: "name", Value: protocol},
			&cli.StringFlag{Name: "socket", Value: twin.DriverSocket},
			&cli.StringFlag{Name: "address", Value: "/run/kedge/mapper-" + protocol + ".sock"},
			&cli.BoolFlag{Name: "debug"},
		}
	}
	var members []*cli.Command
	for _, protocol := range mapper.Protocols() {
		members = append(members, &cli.Command{
			Name: protocol, Usage: "drive devices of the protocol " + protocol, Flags: flags(protocol),
			Action: func(c *cli.Context) error { return p.runMapper(c, protocol) },
		})
	}
	return p.family("mapper", usage, `
  modbus    Devices that speak Modbus, over TCP or a serial line (RTU).
  virtual   Simulated devices, to try things out.

  --name NAME       Name among the mappers of the node. Default: the protocol. A device may choose: spec.protocol.configData.mapper.
  --socket PATH     The node's device mapper interface. Default: `+twin.DriverSocket+`
  --address PATH    Where this mapper listens; the node must find it under the same path. Default: /run/kedge/mapper-PROTOCOL.sock
  --debug           Say more.

The mapper runs beside kedge on the node of the devices, or in a pod there that mounts /run/kedge.`, members...)
}

func (p *program) runMapper(c *cli.Context, protocol string) error {
	ctx, stop := signal.NotifyContext(context.WithoutCancel(c.Context), os.Interrupt, syscall.SIGTERM)
	defer stop()
	level := slog.LevelInfo
	if c.Bool("debug") {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(p.err, &slog.HandlerOptions{Level: level}))
	m, err := mapper.New(mapper.Config{
		Protocol: protocol, Name: strings.TrimSpace(c.String("name")), Socket: c.String("socket"), Address: c.String("address"), Log: log,
	})
	if err != nil {
		return err
	}
	return m.Run(ctx)
}
