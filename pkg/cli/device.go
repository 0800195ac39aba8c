package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/kedge-io/kedge/pkg/certs"
	"github.com/kedge-io/kedge/pkg/twin"
)

// deviceHelp explains the commands about devices.
const deviceHelp = `
  get [NAME] [-n NAMESPACE] [-o table|json]
      Show devices with what is wanted and what they report: on a server all of the cluster, on an agent those of the node.
  describe NAME [-n NAMESPACE]
      Show one device with everything that is known of it.
  set NAME PROPERTY VALUE [-n NAMESPACE]
      Make VALUE the desired value of a property. On the device's own node this works without the server: the driver gets the
      value at once, the server when it can be reached again.
  watch [NAME] [-n NAMESPACE] [-o table|json]
      Show devices, and each change as it happens, until interrupted.

  bus-add CLIENT [DEVICE...]
      Let a client use the message bus (MQTT) of this node, for the devices given or for all, and print its password.
  bus-remove CLIENT, bus-list
      Shut a client out; show who may connect.
  bus-listen ADDRESS:PORT
      Say where the bus listens. Default 127.0.0.1:1883; beyond this machine it speaks TLS.

The command runs on servers and agents, as root.`

func (p *program) deviceCommand() *cli.Command {
	const usage = "show, set and watch devices"
	namespace := func() cli.Flag { return &cli.StringFlag{Name: "namespace", Aliases: []string{"n"}, Value: "default"} }
	return p.family("device", usage, deviceHelp,
		append([]*cli.Command{
			{
				Name: "get", Usage: "show devices", ArgsUsage: "[NAME]", Flags: []cli.Flag{namespace(), outputFlag()},
				Action: func(c *cli.Context) error {
					args, err := lateFlags(c)
					if err != nil {
						return err
					}
					return p.showDevices(c.Context, c.String("namespace"), args, c.String("output"))
				},
			},
			{
				Name: "describe", Usage: "show one device", ArgsUsage: "NAME", Flags: []cli.Flag{namespace()},
				Action: func(c *cli.Context) error {
					args, err := lateFlags(c)
					if err == nil && len(args) != 1 {
						err = errors.New("device describe: give the name of one device")
					}
					if err != nil {
						return err
					}
					return p.describeDevice(c.Context, c.String("namespace"), args[0])
				},
			},
			{
				Name: "set", Usage: "set a property", ArgsUsage: "NAME PROPERTY VALUE", Flags: []cli.Flag{namespace()},
				Action: func(c *cli.Context) error {
					args, err := lateFlags(c)
					if err == nil && len(args) != 3 {
						err = errors.New("device set: give the name of a device, a property and a value")
					}
					if err != nil {
						return err
					}
					return p.setDevice(c.Context, c.String("namespace"), args)
				},
			},
			{
				Name: "watch", Usage: "show each change", ArgsUsage: "[NAME]", Flags: []cli.Flag{namespace(), outputFlag()},
				Action: func(c *cli.Context) error {
					args, err := lateFlags(c)
					if err != nil {
						return err
					}
					return p.watchDevices(c.Context, c.String("namespace"), args, c.String("output"))
				},
			}}, p.busCommands()...)...)
}

// lateFlags takes the flags behind the arguments, where kubectl takes them too, and returns the arguments. A value may begin with a dash.
func lateFlags(c *cli.Context) (args []string, err error) {
	long := map[string]string{"-n": "namespace", "--namespace": "namespace", "-o": "output", "--output": "output"}
	rest := c.Args().Slice()
	for i := 0; i < len(rest); i++ {
		name, value, has := strings.Cut(rest[i], "=")
		flag, known := long[name]
		if !known {
			args = append(args, rest[i])
			continue
		}
		if !has {
			if i++; i == len(rest) {
				return nil, fmt.Errorf("%s: it wants a value", name)
			}
			value = rest[i]
		}
		if err := c.Set(flag, value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return args, nil
}

// deviceDoors are the ways to devices from this machine: its own node's, and on a server the cluster's.
func deviceDoors() (node, cluster twin.Door, err error) {
	if os.Geteuid() != 0 {
		return nil, nil, errors.New("only root may do this: use sudo")
	}
	if _, err := os.Stat(twin.LocalSocket); err == nil {
		node = twin.NodeDoor()
	}
	if path := certs.NewServerPaths(installed().DataDir).AdminKubeconfig; fileExists(path) {
		if cluster, err = twin.ClusterDoor(path); err != nil {
			return nil, nil, err
		}
	}
	if node == nil && cluster == nil {
		return nil, nil, errors.New("kedge does not run on this machine, or without the add-on devices")
	}
	return node, cluster, nil
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// doorOf is the way to one device: its own node when that is this one, so that the link does not matter.
func doorOf(ctx context.Context, namespace, name string) (twin.Door, twin.Device, error) {
	node, cluster, err := deviceDoors()
	if err != nil {
		return nil, twin.Device{}, err
	}
	var d twin.Device
	for _, door := range []twin.Door{node, cluster} {
		if door == nil {
			continue
		}
		if d, err = door.Get(ctx, namespace, name); err == nil {
			return door, d, nil
		}
	}
	return nil, d, fmt.Errorf("device %s/%s: %w", namespace, name, err)
}

func (p *program) showDevices(ctx context.Context, namespace string, names []string, output string) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if len(names) > 1 {
		return errors.New("device get: give the name of one device, or none")
	}
	if len(names) == 1 {
		_, d, err := doorOf(ctx, namespace, names[0])
		if err != nil {
			return err
		}
		return p.printDevices([]twin.Device{d}, output, true)
	}
	node, cluster, err := deviceDoors()
	if err != nil {
		return err
	}
	door := cluster
	if door == nil {
		door = node
	}
	devices, err := door.List(ctx)
	if err != nil && node != nil && door == cluster {
		devices, err = node.List(ctx)
	}
	if err != nil {
		return err
	}
	return p.printDevices(devices, output, true)
}

func (p *program) printDevices(devices []twin.Device, output string, head bool) error {
	switch output {
	case "json":
		for _, d := range devices {
			if err := json.NewEncoder(p.out).Encode(d); err != nil {
				return err
			}
		}
		return nil
	case "table":
	default:
		return fmt.Errorf("output %q: want table or json", output)
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 3, ' ', 0)
	if head {
		fmt.Fprintln(w, "NAMESPACE\tNAME\tNODE\tSTATE\tPROPERTY\tDESIRED\tREPORTED\tTIME")
	}
	for _, d := range devices {
		if len(d.Properties) == 0 {
			d.Properties = []twin.Property{{Name: "-"}}
		}
		for _, prop := range d.Properties {
			desired := text(prop.Desired)
			if prop.Pending {
				desired += " *"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.Namespace, d.Name, d.Node, dash(d.State), prop.Name, desired, text(prop.Reported), when(prop.Reported))
		}
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// text is a value in one line of a table.
func text(v *twin.Value) string {
	if v == nil {
		return "-"
	}
	s := strings.Join(strings.Fields(v.Value), " ")
	if r := []rune(s); len(r) > 40 {
		s = string(r[:37]) + "..."
	}
	return dash(s)
}

func when(v *twin.Value) string {
	if v == nil || v.Time.IsZero() {
		return "-"
	}
	return v.Time.Format(time.RFC3339)
}

func (p *program) describeDevice(ctx context.Context, namespace, name string) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	_, d, err := doorOf(ctx, namespace, name)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "Name:\t%s\nNamespace:\t%s\nNode:\t%s\nModel:\t%s\nProtocol:\t%s\nState:\t%s\n", d.Name, d.Namespace, d.Node, d.Model, d.Protocol, dash(d.State))
	if !d.LastOnline.IsZero() {
		fmt.Fprintf(w, "Last online:\t%s\n", d.LastOnline.Format(time.RFC3339))
	}
	for _, prop := range d.Properties {
		fmt.Fprintf(w, "\nProperty:\t%s\n  Type:\t%s %s\n", prop.Name, prop.Type, prop.Access)
		if prop.Minimum+prop.Maximum+prop.Unit != "" {
			fmt.Fprintf(w, "  Range:\t%s to %s %s\n", dash(prop.Minimum), dash(prop.Maximum), prop.Unit)
		}
		for _, line := range []struct {
			name  string
			value *twin.Value
		}{{"Desired", prop.Desired}, {"Taken up", prop.Observed}, {"Reported", prop.Reported}} {
			if v := line.value; v != nil {
				fmt.Fprintf(w, "  %s:\t%s  (%s)%s\n", line.name, v.Value, when(v), note(v.Problem))
			}
		}
		if prop.Pending {
			fmt.Fprintf(w, "  Pending:\tthe server does not know the desired value yet\n")
		}
	}
	return w.Flush()
}

func note(problem string) string {
	if problem == "" {
		return ""
	}
	return "  " + problem
}

func (p *program) setDevice(ctx context.Context, namespace string, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	door, _, err := doorOf(ctx, namespace, args[0])
	if err != nil {
		return err
	}
	return door.Set(ctx, namespace, args[0], args[1], args[2])
}

func (p *program) watchDevices(ctx context.Context, namespace string, names []string, output string) error {
	only := ""
	var door twin.Door
	switch len(names) {
	case 0:
		node, cluster, err := deviceDoors()
		if err != nil {
			return err
		}
		if door = cluster; door == nil {
			door = node
		}
	case 1:
		d, _, err := doorOf(ctx, namespace, names[0])
		if err != nil {
			return err
		}
		door, only = d, namespace+"/"+names[0]
	default:
		return errors.New("device watch: give the name of one device, or none")
	}
	head := true
	return door.Watch(ctx, only, func(d twin.Device) error {
		err := p.printDevices([]twin.Device{d}, output, head)
		head = false
		return err
	})
}
