package identity

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Action is what somebody wants to do. Path is set instead of the others for what is not a resource.
type Action struct {
	Verb, Group, Resource, Subresource, Namespace, Name, Path string
}

// Rules are the roles and bindings that the node knows.
type Rules struct {
	ClusterRoles        map[string]*rbacv1.ClusterRole
	Roles               map[string]*rbacv1.Role // by namespace/name
	ClusterRoleBindings []*rbacv1.ClusterRoleBinding
	RoleBindings        []*rbacv1.RoleBinding
}

// Allows evaluates RBAC as the server does: some binding of the user leads to a rule that covers the action.
func (r Rules) Allows(u User, a Action) bool {
	for _, b := range r.ClusterRoleBindings {
		if !u.isOne(b.Subjects, "") {
			continue
		}
		if role := r.ClusterRoles[b.RoleRef.Name]; role != nil && covers(role.Rules, a) {
			return true
		}
	}
	if a.Namespace == "" {
		return false
	}
	for _, b := range r.RoleBindings {
		if b.Namespace != a.Namespace || !u.isOne(b.Subjects, b.Namespace) {
			continue
		}
		var rules []rbacv1.PolicyRule
		if b.RoleRef.Kind == "ClusterRole" {
			if role := r.ClusterRoles[b.RoleRef.Name]; role != nil {
				rules = role.Rules
			}
		} else if role := r.Roles[b.Namespace+"/"+b.RoleRef.Name]; role != nil {
			rules = role.Rules
		}
		if covers(rules, a) {
			return true
		}
	}
	return false
}

// isOne says whether the user is among the subjects; namespace is where a service account without one is.
func (u User) isOne(subjects []rbacv1.Subject, namespace string) bool {
	return slices.ContainsFunc(subjects, func(s rbacv1.Subject) bool {
		switch s.Kind {
		case rbacv1.UserKind:
			return s.Name == u.Name
		case rbacv1.GroupKind:
			return slices.Contains(u.Groups, s.Name)
		case rbacv1.ServiceAccountKind:
			ns := s.Namespace
			if ns == "" {
				ns = namespace
			}
			return ns != "" && u.Name == "system:serviceaccount:"+ns+":"+s.Name
		}
		return false
	})
}

func covers(rules []rbacv1.PolicyRule, a Action) bool {
	return slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool {
		if !has(r.Verbs, a.Verb) {
			return false
		}
		if a.Path != "" {
			return slices.ContainsFunc(r.NonResourceURLs, func(p string) bool {
				prefix, wild := strings.CutSuffix(p, "*")
				return p == a.Path || wild && strings.HasPrefix(a.Path, prefix)
			})
		}
		return has(r.APIGroups, a.Group) && coversResource(r.Resources, a) && (len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, a.Name))
	})
}

func has(list []string, value string) bool {
	return slices.Contains(list, value) || slices.Contains(list, "*")
}

func coversResource(resources []string, a Action) bool {
	if a.Subresource == "" {
		return has(resources, a.Resource)
	}
	return slices.Contains(resources, a.Resource+"/"+a.Subresource) || slices.Contains(resources, "*") || slices.Contains(resources, "*/"+a.Subresource)
}
