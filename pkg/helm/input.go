package helm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/strvals"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	v1 "github.com/kedge-io/kedge/pkg/apis/helm/v1"
	"github.com/kedge-io/kedge/pkg/helm/fetch"
)

// input is everything that goes into a release, as it is now.
type input struct {
	chart  *v1.HelmChart
	policy string
	layers []layer
	access fetch.Access
	digest string
}

// gather reads what a HelmChart refers to. config may be nil.
func (c *Controller) gather(ctx context.Context, chart *v1.HelmChart, config *v1.HelmChartConfig) (*input, error) {
	in := &input{chart: chart, policy: v1.FailurePolicyReinstall}
	spec := chart.Spec
	if spec.FailurePolicy != "" {
		in.policy = spec.FailurePolicy
	}
	hash := sha256.New()
	note := func(what string, v any) {
		text, _ := json.Marshal(v) // plain data
		fmt.Fprintf(hash, "%s %d %s\n", what, len(text), text)
	}
	hashed := spec
	hashed.BackOffLimit, hashed.JobImage, hashed.HelmVersion, hashed.FailurePolicy, hashed.Timeout, hashed.Bootstrap = nil, "", "", "", nil, false
	note("spec", hashed)
	if err := c.gatherValues(ctx, in, "HelmChart", spec.Values, spec.ValuesContent, spec.ValuesSecrets, note); err != nil {
		return nil, err
	}
	if config != nil {
		s := config.Spec
		if s.FailurePolicy != "" {
			in.policy = s.FailurePolicy
		}
		note("config", []any{s.Values, s.ValuesContent})
		if err := c.gatherValues(ctx, in, "HelmChartConfig", s.Values, s.ValuesContent, s.ValuesSecrets, note); err != nil {
			return nil, err
		}
	}
	var err error
	if in.access, err = c.gatherAccess(ctx, chart); err != nil {
		return nil, err
	}
	in.digest = hex.EncodeToString(hash.Sum(nil))
	return in, nil
}

func (c *Controller) gatherValues(ctx context.Context, in *input, from string, values map[string]any, content string, secrets []v1.SecretValues, note func(string, any)) error {
	if len(values) > 0 {
		text, err := json.Marshal(values)
		if err != nil {
			return fmt.Errorf("%s values: %w", from, err)
		}
		in.layers = append(in.layers, layer{from + " values", string(text)})
	}
	if content != "" {
		in.layers = append(in.layers, layer{from + " valuesContent", content})
	}
	for _, s := range secrets {
		secret, err := c.core.Secrets(in.chart.Namespace).Get(ctx, s.Name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("%s valuesSecrets: %w", from, err)
		}
		keys := s.Keys
		if len(keys) == 0 {
			keys = slices.Sorted(maps.Keys(secret.Data))
		}
		for _, key := range keys {
			text, ok := secret.Data[key]
			if !ok {
				return fmt.Errorf("%s valuesSecrets: secret %s has no key %s", from, s.Name, key)
			}
			in.layers = append(in.layers, layer{fmt.Sprintf("secret %s key %s", s.Name, key), string(text)})
			if !s.IgnoreUpdates {
				note("secret", []any{s.Name, key, sha256.Sum256(text)})
			}
		}
	}
	return nil
}

// gatherAccess reads what is needed to reach the repository.
func (c *Controller) gatherAccess(ctx context.Context, chart *v1.HelmChart) (fetch.Access, error) {
	spec := chart.Spec
	a := fetch.Access{CA: spec.RepoCA, Insecure: spec.InsecureSkipTLSVerify, Plain: spec.PlainHTTP, Everywhere: spec.AuthPassCredentials || spec.PassCredentials}
	if spec.RepoCAConfigMap != nil {
		m, err := c.core.ConfigMaps(chart.Namespace).Get(ctx, spec.RepoCAConfigMap.Name, metav1.GetOptions{})
		if err != nil {
			return a, fmt.Errorf("repoCAConfigMap: %w", err)
		}
		for _, key := range slices.Sorted(maps.Keys(m.Data)) {
			a.CA += "\n" + m.Data[key]
		}
	}
	if spec.AuthSecret != nil {
		secret, err := c.core.Secrets(chart.Namespace).Get(ctx, spec.AuthSecret.Name, metav1.GetOptions{})
		if err != nil {
			return a, fmt.Errorf("authSecret: %w", err)
		}
		a.Username, a.Password = string(secret.Data["username"]), string(secret.Data["password"])
		a.ClientCert, a.ClientKey = secret.Data["tls.crt"], secret.Data["tls.key"]
		if a.Username == "" && len(a.ClientCert) == 0 {
			return a, fmt.Errorf("authSecret: secret %s has neither username and password nor tls.crt and tls.key", secret.Name)
		}
	}
	if spec.DockerRegistrySecret != nil {
		secret, err := c.core.Secrets(chart.Namespace).Get(ctx, spec.DockerRegistrySecret.Name, metav1.GetOptions{})
		if err != nil {
			return a, fmt.Errorf("dockerRegistrySecret: %w", err)
		}
		if a.Docker, err = fetch.DockerLogins(secret.Data[".dockerconfigjson"]); err != nil {
			return a, fmt.Errorf("dockerRegistrySecret: secret %s: %w", secret.Name, err)
		}
	}
	return a, nil
}

// refersToOthers says whether there are Secrets whose changes nobody tells us of.
func refersToOthers(chart *v1.HelmChart, config *v1.HelmChartConfig) bool {
	return len(chart.Spec.ValuesSecrets) > 0 || config != nil && len(config.Spec.ValuesSecrets) > 0
}

// layer is values as they are written, with the name that an error says.
type layer struct {
	from string
	text string
}

// mergeValues lays later layers over earlier ones, and set over all of them.
func mergeValues(layers []layer, set map[string]intstr.IntOrString) (map[string]any, error) {
	merged := map[string]any{}
	for _, l := range layers {
		values := map[string]any{}
		if err := yaml.Unmarshal([]byte(l.text), &values); err != nil {
			return nil, fmt.Errorf("%s: not YAML values: %w", l.from, err)
		}
		merged = chartutil.MergeTables(values, merged)
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		value := set[key]
		parse := strvals.ParseIntoString
		if value.Type == intstr.Int || slices.Contains([]string{"true", "false", "null"}, value.StrVal) {
			parse = strvals.ParseInto
		}
		if err := parse(key+"="+strings.ReplaceAll(value.String(), ",", `\,`), merged); err != nil {
			return nil, fmt.Errorf("set %s: %w", key, err)
		}
	}
	return merged, nil
}
