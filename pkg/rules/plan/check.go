package plan

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	v1 "github.com/kedge-io/kedge/pkg/apis/rules/v1"
)

// maxTopic is the longest topic, in bytes, that MQTT knows.
const maxTopic = 65535

// CheckEndpoint says what is wrong with an endpoint.
func CheckEndpoint(e *v1.RuleEndpoint) field.ErrorList {
	at := field.NewPath("spec")
	switch e.Spec.RuleEndpointType {
	case v1.Rest, v1.EventBus:
		return nil
	case v1.ServiceBus:
		_, err := portOf(e)
		return err
	}
	return field.ErrorList{field.NotSupported(at.Child("ruleEndpointType"), e.Spec.RuleEndpointType, []string{v1.Rest, v1.EventBus, v1.ServiceBus})}
}

// portOf is the port of the service behind a servicebus; an endpoint that is a source only needs none.
func portOf(e *v1.RuleEndpoint) (int, field.ErrorList) {
	text, given := e.Spec.Properties[v1.KeyServicePort]
	if !given {
		return 0, nil
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 {
		return 0, field.ErrorList{field.Invalid(field.NewPath("spec", "properties").Key(v1.KeyServicePort), text, "must be a port, 1 to 65535")}
	}
	return port, nil
}

// Resolve turns a rule and its endpoints into a route, or says what is wrong with it. An endpoint that does not exist is nil.
func Resolve(r *v1.Rule, source, target *v1.RuleEndpoint) (Route, field.ErrorList) {
	at := field.NewPath("spec")
	out := Route{Namespace: r.Namespace, Name: r.Name}
	var errs field.ErrorList
	for name, e := range map[string]*v1.RuleEndpoint{"source": source, "target": target} {
		if e == nil {
			missing := r.Spec.Source
			if name == "target" {
				missing = r.Spec.Target
			}
			errs = append(errs, field.NotFound(at.Child(name), "RuleEndpoint "+missing+" in namespace "+r.Namespace))
		}
	}
	if len(errs) > 0 {
		return out, errs
	}
	out.Source, out.Target = source.Spec.RuleEndpointType, target.Spec.RuleEndpointType
	switch out.Source + " " + out.Target {
	case v1.Rest + " " + v1.EventBus, v1.EventBus + " " + v1.Rest, v1.Rest + " " + v1.ServiceBus, v1.ServiceBus + " " + v1.Rest:
	default:
		return out, field.ErrorList{field.Invalid(at.Child("target"), r.Spec.Target,
			fmt.Sprintf("messages go from rest to eventbus or servicebus, and from eventbus or servicebus to rest, not from %s to %s", out.Source, out.Target))}
	}
	errs = append(errs, out.readSource(at.Child("sourceResource"), r.Spec.SourceResource)...)
	errs = append(errs, out.readTarget(at.Child("targetResource"), r.Spec.TargetResource, target)...)
	return out, errs
}

func (r *Route) readSource(at *field.Path, m map[string]string) (errs field.ErrorList) {
	if r.Source == v1.Rest {
		if r.path, errs = readPattern(at.Key(v1.KeyPath), m[v1.KeyPath]); len(errs) > 0 {
			return errs
		}
		return nil
	}
	r.Node = m[v1.KeyNode]
	if problems := validation.IsDNS1123Subdomain(r.Node); len(problems) > 0 {
		errs = append(errs, field.Invalid(at.Key(v1.KeyNode), r.Node, "must be the name of a node"))
	}
	if r.Source == v1.ServiceBus {
		if r.TargetURL = m[v1.KeyTargetURL]; r.TargetURL == "" {
			errs = append(errs, field.Required(at.Key(v1.KeyTargetURL), "the name by which programs on the node ask for this rule, for example http://shop.example/orders"))
		}
		return errs
	}
	topic := strings.TrimPrefix(m[v1.KeyTopic], "/")
	if reason := badFilter(topic); reason != "" {
		errs = append(errs, field.Invalid(at.Key(v1.KeyTopic), m[v1.KeyTopic], reason))
	}
	r.Filter = r.Namespace + "/" + topic
	return errs
}

func (r *Route) readTarget(at *field.Path, m map[string]string, e *v1.RuleEndpoint) (errs field.ErrorList) {
	switch r.Target {
	case v1.Rest:
		r.URL = m[v1.KeyResource]
		u, err := url.Parse(r.URL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return field.ErrorList{field.Invalid(at.Key(v1.KeyResource), r.URL, "must be like http://10.0.0.9:8080/messages or https://…")}
		}
	case v1.EventBus:
		r.Topic = m[v1.KeyTopic]
		if reason := BadTopic(r.Topic); reason != "" {
			return field.ErrorList{field.Invalid(at.Key(v1.KeyTopic), r.Topic, reason)}
		}
	case v1.ServiceBus:
		if r.Port, errs = portOf(e); len(errs) == 0 && r.Port == 0 {
			errs = append(errs, field.Required(field.NewPath("spec", "target"), "RuleEndpoint "+e.Name+" needs spec.properties.service_port, the port of the service on the node"))
		}
		path, given := m[v1.KeyPath]
		if !given {
			return append(errs, field.Required(at.Key(v1.KeyPath), "the path of the service, for example /measure"))
		}
		r.Path = "/" + strings.Trim(path, "/")
		if strings.ContainsAny(path, "?#%\\") || unclean(r.Path) {
			errs = append(errs, field.Invalid(at.Key(v1.KeyPath), path, "must be a path without . and .. and without ?, #, %"))
		}
	}
	return errs
}
