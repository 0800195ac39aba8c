package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kedge-io/kedge/test/images"
	"github.com/kedge-io/kedge/test/vm/control"
)

// runTimeout bounds Run and what is built on it.
const runTimeout = 2 * time.Minute

// Run runs a program on the machine and returns its standard output. The error holds what it wrote to standard error, and is
// a *control.ExitError when it ended with another code than 0.
func (n *Node) Run(argv ...string) (string, error) { return n.RunInput("", argv...) }

// RunInput is Run with standard input.
func (n *Node) RunInput(input string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	var out, errOut bytes.Buffer
	err := n.RunStreams(ctx, control.Command{Argv: argv, Stdin: strings.NewReader(input), Stdout: &out, Stderr: &errOut})
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, errOut.String())
	}
	return out.String(), err
}

// RunStreams runs a program with streams until it ends or ctx is done, which kills it.
func (n *Node) RunStreams(ctx context.Context, c control.Command) error {
	if n.on == nil {
		return fmt.Errorf("%s is off", n.name)
	}
	return n.on.control.Exec(ctx, c)
}

// Exec runs a program on the machine and returns its standard output without space around it; it must succeed.
func (n *Node) Exec(argv ...string) string {
	n.lab.t.Helper()
	out, err := n.Run(argv...)
	if err != nil {
		n.lab.t.Fatalf("on %s: %v", n.name, err)
	}
	return strings.TrimSpace(out)
}

// Kedge runs a kedge command on the machine, as Exec does.
func (n *Node) Kedge(args ...string) string {
	n.lab.t.Helper()
	return n.Exec(append([]string{binaryPath}, args...)...)
}

// Kubectl runs kedge kubectl on the machine, as Exec does.
func (n *Node) Kubectl(args ...string) string {
	n.lab.t.Helper()
	return n.Kedge(append([]string{"kubectl"}, args...)...)
}

// TryKedge is Kedge for what may fail.
func (n *Node) TryKedge(args ...string) (string, error) {
	out, err := n.Run(append([]string{binaryPath}, args...)...)
	return strings.TrimSpace(out), err
}

// TryKubectl is Kubectl for what may fail.
func (n *Node) TryKubectl(args ...string) (string, error) {
	return n.TryKedge(append([]string{"kubectl"}, args...)...)
}

// Apply applies manifests on the machine.
func (n *Node) Apply(yaml string) {
	n.lab.t.Helper()
	n.lab.must("on "+n.name, n.TryApply(yaml))
}

// TryApply is Apply for what may fail.
func (n *Node) TryApply(yaml string) error {
	_, err := n.RunInput(yaml, binaryPath, "kubectl", "apply", "-f", "-")
	return err
}

// ApplyFile applies a file of the host on the machine, unchanged.
func (n *Node) ApplyFile(path string) {
	n.lab.t.Helper()
	text, err := os.ReadFile(path)
	n.lab.must("read manifests", err)
	n.Apply(string(text))
}

// Field is what a JSONPath finds in an object of the namespace default.
func (n *Node) Field(kind, name, path string) (string, error) {
	return n.TryKubectl("get", kind, name, "-o", "jsonpath="+path)
}

// AwaitField waits until a field of an object of the namespace default is what it should be.
func (n *Node) AwaitField(kind, name, path, want string) {
	n.lab.t.Helper()
	n.lab.Await(fmt.Sprintf("%s of %s %s", path, kind, name), runTimeout, func() error {
		got, err := n.Field(kind, name, path)
		if err == nil && got != want {
			err = fmt.Errorf("it is %q, want %q", got, want)
		}
		return err
	})
}

// Dial connects from the machine's network to an address with an IP, without going through the machine's processes.
func (n *Node) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if n.on == nil {
		return nil, fmt.Errorf("%s is off", n.name)
	}
	err = n.on.ns.Do(func() error {
		var dialer net.Dialer // opens its socket on the calling thread when there is one address to try
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen opens a TCP or unix listener in the machine's network, for a program of the test to serve there.
func (n *Node) Listen(network, address string) (listener net.Listener, err error) {
	if n.on == nil {
		return nil, fmt.Errorf("%s is off", n.name)
	}
	err = n.on.ns.Do(func() error {
		listener, err = net.Listen(network, address)
		return err
	})
	return listener, err
}

// adminKubeconfig is where a server writes it.
const adminKubeconfig = "/etc/kedge/kedge.yaml"

// RESTConfig is how a test in this process reaches the API of a server: as its administrator, from the machine's own network.
func (n *Node) RESTConfig() (*rest.Config, error) {
	if n.on == nil {
		return nil, fmt.Errorf("%s is off", n.name)
	}
	kubeconfig, err := os.ReadFile(n.insidePath(adminKubeconfig))
	if err != nil {
		return nil, err
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.Dial = n.Dial
	cfg.QPS = -1
	return cfg, nil
}

// Client is a client for the API of a server; see RESTConfig. It works on over restarts and reboots of the server.
func (n *Node) Client() (*kubernetes.Clientset, error) {
	cfg, err := n.RESTConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(cfg)
}

// AwaitNodes waits until the server n knows the nodes and they are ready.
func (n *Node) AwaitNodes(names ...string) {
	n.lab.t.Helper()
	n.lab.Await("nodes "+strings.Join(names, ", ")+" ready", readyTimeout, func() error {
		client, err := n.Client()
		if err != nil {
			return err
		}
		for _, name := range names {
			node, err := client.CoreV1().Nodes().Get(n.lab.t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if err := nodeNotReady(node); err != nil {
				return err
			}
		}
		return nil
	})
}

func nodeNotReady(node *corev1.Node) error {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return nil
		}
		if c.Type == corev1.NodeReady {
			return fmt.Errorf("node %s: %s: %s", node.Name, c.Reason, c.Message)
		}
	}
	return fmt.Errorf("node %s has not said yet whether it is ready", node.Name)
}

// AwaitPods waits until exactly want pods match the label selector, all ready, and returns them.
func (n *Node) AwaitPods(namespace, selector string, want int) []corev1.Pod {
	n.lab.t.Helper()
	var pods []corev1.Pod
	n.lab.Await(fmt.Sprintf("%d pods with %s", want, selector), readyTimeout, func() error {
		client, err := n.Client()
		if err != nil {
			return err
		}
		list, err := client.CoreV1().Pods(namespace).List(n.lab.t.Context(), metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return err
		}
		pods = list.Items
		var errs []error
		for i := range pods {
			errs = append(errs, podNotReady(&pods[i]))
		}
		if len(pods) != want {
			errs = append(errs, fmt.Errorf("there are %d", len(pods)))
		}
		return errors.Join(errs...)
	})
	return pods
}

func podNotReady(pod *corev1.Pod) error {
	if pod.DeletionTimestamp != nil {
		return fmt.Errorf("pod %s is being deleted", pod.Name)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return nil
		}
	}
	text := fmt.Sprintf("pod %s is %s", pod.Name, pod.Status.Phase)
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			text += fmt.Sprintf(", %s: %s %s", c.Name, w.Reason, w.Message)
		}
	}
	return errors.New(text)
}

// Serve serves HTTP on an address of the machine until the test ends. The program is one of the test, and outlives the machine's reboots no
// more than its connections do.
func (n *Node) Serve(address string, handler http.Handler) {
	n.lab.t.Helper()
	listener, err := n.Listen("tcp", address)
	n.lab.must("serve on "+n.name, err)
	program := &http.Server{Handler: handler, ReadHeaderTimeout: runTimeout}
	go func() { _ = program.Serve(listener) }()
	n.lab.t.Cleanup(func() { _ = program.Close() })
}

// AddBusybox puts the image kedge.local/busybox:1 into the machine's images folder, as an airgapped user does.
func (n *Node) AddBusybox() {
	n.lab.t.Helper()
	image, err := images.Busybox("/bin/busybox")
	n.lab.must("make the busybox image", err)
	n.AddImage(image, "busybox.tar")
}

// AddImage puts an image into the machine's images folder, in a file of that name.
func (n *Node) AddImage(image images.Image, file string) {
	n.lab.t.Helper()
	dir := n.HostPath("/var/lib/kedge/agent/images")
	n.lab.must("make images folder", os.MkdirAll(dir, 0o755))
	n.lab.must("write image "+image.Ref, image.WriteDocker(filepath.Join(dir, file)))
}
