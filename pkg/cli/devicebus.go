package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/twin"
)

// busCommands manage the message bus of the node on this machine.
func (p *program) busCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "bus-add", Usage: "let a client use the message bus", ArgsUsage: "CLIENT [DEVICE...]",
			Action: func(c *cli.Context) error {
				if c.Args().Len() == 0 {
					return errors.New("device bus-add: give a name for the client")
				}
				return p.addBusClient(c.Args().First(), c.Args().Tail())
			},
		},
		{
			Name: "bus-remove", Usage: "shut a client out", ArgsUsage: "CLIENT",
			Action: func(c *cli.Context) error {
				file, err := busFile()
				if err != nil {
					return err
				}
				found, err := file.Remove(c.Args().First())
				if err == nil && !found {
					err = fmt.Errorf("there is no client %q", c.Args().First())
				}
				return err
			},
		},
		{Name: "bus-list", Usage: "show who may use the message bus", Action: func(*cli.Context) error { return p.listBus() }},
		{
			Name: "bus-listen", Usage: "say where the message bus listens", ArgsUsage: "ADDRESS:PORT",
			Action: func(c *cli.Context) error {
				file, err := busFile()
				if err != nil {
					return err
				}
				if fixed := installed().MQTT.Listen; len(fixed) > 0 {
					return fmt.Errorf("the configuration says where the bus listens: mqtt-listen: %s", strings.Join(fixed, ", "))
				}
				return file.Listen(c.Args().First())
			},
		},
	}
}

// busFile is that of the node on this machine.
func busFile() (file interface {
	Add(name string, devices []string) (string, error)
	Remove(name string) (bool, error)
	Listen(address string) error
}, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root may do this: use sudo")
	}
	return twin.BusFile(busDir()), nil
}

func busDir() string { return filepath.Join(installed().DataDir, "agent", "devices") }

func (p *program) addBusClient(name string, devices []string) error {
	for i, d := range devices {
		if !strings.Contains(d, "/") {
			devices[i] = "default/" + d
		}
	}
	file, err := busFile()
	if err != nil {
		return err
	}
	password, err := file.Add(name, devices)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, password)
	return err
}

func (p *program) listBus() error {
	if os.Geteuid() != 0 {
		return errors.New("only root may do this: use sudo")
	}
	file, mqtt := twin.BusFile(busDir()), installed().MQTT
	file.Addresses, file.Credentials, file.Anonymous = mqtt.Listen, mqtt.Credentials, mqtt.Anonymous
	settings, err := file.Load()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "CLIENT\tDEVICES\t(listens on %s)\n", strings.Join(settings.Addresses(), ", "))
	for _, c := range settings.All() {
		devices := strings.Join(c.Devices, ", ")
		if devices == "" {
			devices = "all"
		}
		fmt.Fprintf(w, "%s\t%s\n", c.Name, devices)
	}
	if mqtt.Anonymous {
		fmt.Fprintln(w, "(anybody on this machine)\tall")
	}
	return w.Flush()
}
