// Package manifest reads manifest files: bytes to objects, what makes two objects the same, and in which order they are
// applied and removed. Pure; only addons imports it.
package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kedge-io/kedge/pkg/kube"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// MaxSize bounds what one file may take of memory, in bytes.
const MaxSize = 32 << 20

// Parse reads the objects of a manifest file: YAML documents or one JSON value, with Lists taken apart. Either all of it is
// good or none is returned. An error names the line of the file.
func Parse(data []byte) ([]*unstructured.Unstructured, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data) {
		return nil, errors.New("the file is not UTF-8 text: it may be damaged")
	}
	var objects []*unstructured.Unstructured
	for _, doc := range split(data) {
		found, err := doc.parse()
		if err != nil {
			return nil, err
		}
		objects = append(objects, found...)
	}
	if len(objects) == 0 {
		return nil, errors.New("the file holds no objects: delete the file to remove what it made")
	}
	seen := map[string]bool{}
	for _, obj := range objects {
		ref := kube.RefOf(obj)
		if seen[Identity(ref)] {
			return nil, fmt.Errorf("%s is in the file twice", ref)
		}
		seen[Identity(ref)] = true
	}
	return objects, nil
}

// document is one YAML document and the line of the file it begins at, from 0.
type document struct {
	line int
	text []byte
}

// split cuts at the lines that begin with "---", which YAML reserves for that even inside block scalars.
func split(data []byte) []document {
	var docs []document
	current := document{}
	number := 0
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte("---")); ok && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n")) {
			docs = append(docs, current)
			current = document{line: number, text: append([]byte("   "), rest...)}
		} else {
			current.text = append(current.text, line...)
		}
		number++
	}
	return append(docs, current)
}

// blank says whether there is nothing but comments and directives.
func (d document) blank() bool {
	for line := range bytes.Lines(d.text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' && !bytes.Equal(line, []byte("...")) {
			return false
		}
	}
	return true
}

func (d document) parse() ([]*unstructured.Unstructured, error) {
	if d.blank() {
		return nil, nil
	}
	// Empty lines in front make the parser report lines of the file instead of lines of the document.
	padded := append(bytes.Repeat([]byte("\n"), d.line), d.text...)
	data, err := yaml.YAMLToJSONStrict(padded)
	if err != nil {
		return nil, errors.New(plain(err.Error()))
	}
	var content map[string]any
	if err := utiljson.Unmarshal(data, &content); err != nil || content == nil {
		return nil, fmt.Errorf("line %d: this is not a Kubernetes object", d.firstLine())
	}
	return d.flatten(&unstructured.Unstructured{Object: content})
}

// plain makes one readable line of the parser's error.
func plain(text string) string {
	for _, prefix := range []string{"error converting YAML to JSON: ", "yaml: ", "unmarshal errors:"} {
		text = strings.TrimPrefix(text, prefix)
	}
	return strings.Join(strings.Fields(text), " ")
}

// firstLine is the first line with content, as people count.
func (d document) firstLine() int {
	number := d.line
	for line := range bytes.Lines(d.text) {
		number++
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && line[0] != '%' {
			break
		}
	}
	return number
}

// flatten checks an object, or takes a list apart.
func (d document) flatten(obj *unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	fail := func(format string, args ...any) ([]*unstructured.Unstructured, error) {
		return nil, fmt.Errorf("line %d: "+format, append([]any{d.firstLine()}, args...)...)
	}
	if obj.GetAPIVersion() == "" || obj.GetKind() == "" {
		return fail("apiVersion and kind must both be set")
	}
	items, isList := obj.Object["items"].([]any)
	if !isList || !strings.HasSuffix(obj.GetKind(), "List") {
		return d.checkObject(obj)
	}
	var out []*unstructured.Unstructured
	for i, item := range items {
		content, ok := item.(map[string]any)
		if !ok {
			return fail("item %d of the list is not a Kubernetes object", i+1)
		}
		member := &unstructured.Unstructured{Object: content}
		if kind := strings.TrimSuffix(obj.GetKind(), "List"); kind != "" && member.GetKind() == "" {
			member.SetKind(kind)
			member.SetAPIVersion(obj.GetAPIVersion())
		}
		found, err := d.flatten(member)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func (d document) checkObject(obj *unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	metadata, isMap := obj.Object["metadata"].(map[string]any)
	for _, field := range []string{"name", "namespace"} {
		if value := metadata[field]; value != nil && !isText(value) { // YAML reads a bare n, no or 12 as something else
			return nil, fmt.Errorf("line %d: metadata.%s of the %s is not text: put quotes around it", d.firstLine(), field, obj.GetKind())
		}
	}
	switch {
	case !isMap && obj.Object["metadata"] != nil:
		return nil, fmt.Errorf("line %d: metadata of the %s must hold fields", d.firstLine(), obj.GetKind())
	case obj.GetName() == "" && obj.GetGenerateName() != "":
		return nil, fmt.Errorf("line %d: the %s needs metadata.name: generateName would make a new one each time", d.firstLine(), obj.GetKind())
	case obj.GetName() == "":
		return nil, fmt.Errorf("line %d: the %s needs metadata.name", d.firstLine(), obj.GetKind())
	}
	// Fields that belong to the server: manifests saved from a cluster carry them, and they would make every apply fail.
	for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "selfLink"} {
		unstructured.RemoveNestedField(obj.Object, "metadata", field)
	}
	return []*unstructured.Unstructured{obj}, nil
}

func isText(value any) bool {
	_, ok := value.(string)
	return ok
}

// Identity tells objects apart: group, kind, namespace and name. Version does not count, and no namespace is "default".
func Identity(ref kube.Ref) string {
	return ref.GroupKind().String() + "|" + cmp.Or(ref.Namespace, "default") + "|" + ref.Name
}

// rank orders kinds: what others need to exist first, what could refuse others last, everything else in file order.
func rank(ref kube.Ref) int {
	switch ref.GroupKind().String() {
	case "Namespace", "CustomResourceDefinition.apiextensions.k8s.io":
		return rankEarly
	case "PriorityClass.scheduling.k8s.io", "RuntimeClass.node.k8s.io", "StorageClass.storage.k8s.io":
		return 1
	case "ServiceAccount", "ConfigMap", "Secret", "ResourceQuota", "LimitRange":
		return 2
	case "ClusterRole.rbac.authorization.k8s.io", "Role.rbac.authorization.k8s.io":
		return 3
	case "ClusterRoleBinding.rbac.authorization.k8s.io", "RoleBinding.rbac.authorization.k8s.io":
		return 4
	case "ValidatingWebhookConfiguration.admissionregistration.k8s.io", "MutatingWebhookConfiguration.admissionregistration.k8s.io",
		"ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io", "APIService.apiregistration.k8s.io":
		return 6
	}
	return 5
}

const rankEarly = 0

// Early says whether an object of this kind is applied before the other objects of all files: definitions and namespaces.
func Early(ref kube.Ref) bool { return rank(ref) == rankEarly }

// SortForApply puts objects that others need first and what could refuse others last; the rest stays in file order.
func SortForApply(objects []*unstructured.Unstructured) {
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return rank(kube.RefOf(a)) - rank(kube.RefOf(b)) })
}

// SortForPrune puts instances before their definitions and namespaces.
func SortForPrune(refs []kube.Ref) {
	slices.SortStableFunc(refs, func(a, b kube.Ref) int { return rank(b) - rank(a) })
}
