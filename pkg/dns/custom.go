package dns

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coredns/caddy/caddyfile"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// The ConfigMap with the custom configuration. Keys ending in .override add plugins to the default server, keys
// ending in .server add whole servers.
const (
	customNamespace = "kube-system"
	customName      = "coredns-custom"
)

// custom is a parsed custom configuration. version is empty for none and differs for different content.
type custom struct {
	version  string
	override map[string][]caddyfile.Token
	servers  []caddyfile.ServerBlock
	ignored  []string
	uid      types.UID
	err      error // why the content cannot be used
}

// customPlugins returns the plugins that a custom configuration may use: those that are compiled in.
func customPlugins() []string {
	return []string{"acl", "cache", "errors", "forward", "header", "hosts", "loadbalance", "local", "log", "rewrite", "template"}
}

// ignoredPlugins returns plugins that a configuration written for a CoreDNS pod often names and that have no meaning
// here: kedge does their work, or they would end the whole process.
func ignoredPlugins() []string { return []string{"health", "loop", "prometheus", "ready", "reload"} }

// parseCustom reads the data of the ConfigMap. Keys that end in neither .override nor .server are not read.
func parseCustom(data map[string]string) custom {
	c := custom{version: contentVersion(data), override: map[string][]caddyfile.Token{}}
	if len(data) == 0 {
		return custom{}
	}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		var err error
		switch {
		case strings.HasSuffix(key, ".override"):
			err = c.addOverride(key, data[key])
		case strings.HasSuffix(key, ".server"):
			err = c.addServers(key, data[key])
		}
		if err != nil {
			c.err = errors.Join(c.err, fmt.Errorf("key %s: %w", key, err))
		}
	}
	slices.Sort(c.ignored)
	c.ignored = slices.Compact(c.ignored)
	return c
}

func (c *custom) addOverride(key, text string) error {
	blocks, err := parseBlocks(key, ". {\n"+text+"\n}\n")
	if err != nil {
		return err
	}
	if len(blocks) != 1 {
		return errors.New("an override holds plugins only: move server blocks to a key ending in .server")
	}
	for name, tokens := range c.known(blocks[0].Tokens) {
		c.override[name] = append(c.override[name], tokens...)
	}
	return nil
}

func (c *custom) addServers(key, text string) error {
	blocks, err := parseBlocks(key, text)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		b.Tokens = c.known(b.Tokens)
		c.servers = append(c.servers, b)
	}
	return nil
}

// known returns the directives without the ignored ones.
func (c *custom) known(directives map[string][]caddyfile.Token) map[string][]caddyfile.Token {
	out := map[string][]caddyfile.Token{}
	for name, tokens := range directives {
		if slices.Contains(ignoredPlugins(), name) {
			c.ignored = append(c.ignored, name)
			continue
		}
		out[name] = tokens
	}
	return out
}

// parseBlocks parses text and refuses what would read the node's files or environment.
func parseBlocks(key, text string) ([]caddyfile.ServerBlock, error) {
	if strings.Contains(text, "{$") || strings.Contains(text, "{%") {
		return nil, errors.New("environment variables are not available: write the value itself")
	}
	for d := caddyfile.NewDispenser(key, strings.NewReader(text)); d.Next(); {
		switch d.Val() {
		case "import":
			return nil, errors.New("import is not available: write the imported lines themselves")
		case "bind":
			return nil, errors.New("bind is not available: every server listens on the cluster DNS address")
		case "kubernetes":
			return nil, errors.New("kubernetes is not available: the cluster zone is always served")
		}
	}
	return caddyfile.Parse(key, strings.NewReader(text), append(customPlugins(), ignoredPlugins()...))
}

// contentVersion returns a short hash of data, the same for the same content.
func contentVersion(data map[string]string) string {
	h := fnv.New64a()
	for _, key := range slices.Sorted(maps.Keys(data)) {
		fmt.Fprintf(h, "%d:%s%d:%s", len(key), key, len(data[key]), data[key])
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// watchCustom calls set with every state of the ConfigMap until ctx is done; an absent one is the zero custom.
func watchCustom(ctx context.Context, client kubernetes.Interface, set func(custom)) {
	one := fields.OneTermEqualSelector(metav1.ObjectNameField, customName)
	source := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "configmaps", customNamespace, one)
	use := func(o any) {
		if cm, ok := o.(*corev1.ConfigMap); ok {
			c := parseCustom(cm.Data)
			c.uid = cm.UID
			set(c)
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source,
		ObjectType:    &corev1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    use,
			UpdateFunc: func(_, o any) { use(o) },
			DeleteFunc: func(any) { set(custom{}) },
		},
	})
	informer.RunWithContext(ctx)
}

// reportBroken writes an Event on the ConfigMap that says why its content is not used.
func reportBroken(ctx context.Context, client kubernetes.Interface, node string, c custom, reason error) {
	now := metav1.NewTime(time.Now())
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: customName + ".", Namespace: customNamespace},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "ConfigMap", Namespace: customNamespace, Name: customName, UID: c.uid,
		},
		Reason:         "InvalidDNSConfig",
		Message:        "the last good configuration stays in use: " + reason.Error(),
		Type:           corev1.EventTypeWarning,
		Source:         corev1.EventSource{Component: "kedge-dns", Host: node},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// The log already holds the reason; an Event that cannot be written says nothing more.
	_, _ = client.CoreV1().Events(customNamespace).Create(ctx, event, metav1.CreateOptions{})
}
