// Package v1 holds the kinds of rules.kubeedge.io/v1: data only. Anyone may import it.
package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group and Version name the API.
const (
	Group   = "rules.kubeedge.io"
	Version = "v1"
)

// Types of endpoints.
const (
	Rest       = "rest"
	EventBus   = "eventbus"
	ServiceBus = "servicebus"
)

// Keys of sources, targets and properties.
const (
	KeyPath        = "path"
	KeyTopic       = "topic"
	KeyNode        = "node_name"
	KeyTargetURL   = "target_url"
	KeyResource    = "resource"
	KeyServicePort = "service_port"
)

// RuleEndpoint says where messages come from or go to.
type RuleEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec RuleEndpointSpec `json:"spec"`
}

// RuleEndpointSpec is the type, and for a servicebus the port of the service.
type RuleEndpointSpec struct {
	RuleEndpointType string            `json:"ruleEndpointType"`
	Properties       map[string]string `json:"properties,omitempty"`
}

// Rule carries messages from one endpoint to another of the same namespace.
type Rule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RuleSpec   `json:"spec"`
	Status RuleStatus `json:"status,omitempty"`
}

// RuleSpec names the endpoints and what of them is meant.
type RuleSpec struct {
	Source         string            `json:"source"`
	SourceResource map[string]string `json:"sourceResource"`
	Target         string            `json:"target"`
	TargetResource map[string]string `json:"targetResource"`
}

// RuleStatus counts messages, and holds the latest errors.
type RuleStatus struct {
	SuccessMessages int64    `json:"successMessages"`
	FailMessages    int64    `json:"failMessages"`
	Errors          []string `json:"errors,omitempty"`
}

// Rules and RuleEndpoints name the resources.
func Rules() schema.GroupVersionResource { return resource("rules") }

// RuleEndpoints names the resource.
func RuleEndpoints() schema.GroupVersionResource { return resource("ruleendpoints") }

func resource(name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: Group, Version: Version, Resource: name}
}
