package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	jose "gopkg.in/go-jose/go-jose.v2"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/autonomy/filter"
)

func authority(t *testing.T, node string) (*Authority, Paths) {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "agent"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := NewPaths(dir)
	a, err := EnsureAuthority(p, node)
	if err != nil {
		t.Fatal(err)
	}
	return a, p
}

func request(t *testing.T, pair tls.Certificate) *http.Request {
	t.Helper()
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return &http.Request{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}}
}

func TestOperatorOfThisNodeOnly(t *testing.T) {
	a, p := authority(t, "a")
	b, other := authority(t, "b")
	mine, err := a.EnsureOperator(p, "https://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := b.EnsureOperator(other, "https://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	gate := &Gate{Local: a, ClientCA: p.Authority, Own: []Own{{Name: "system:node:a", Asker: filter.Kubelet}}}
	if u, err := gate.Who(request(t, mine)); err != nil || u.Asker != filter.Operator {
		t.Errorf("the operator is %+v, %v", u, err)
	}
	if u, err := gate.Who(request(t, theirs)); err == nil {
		t.Errorf("the operator of another node is %+v", u)
	}
	if u, err := gate.Who(&http.Request{Header: http.Header{}}); err == nil {
		t.Errorf("nobody is %+v", u)
	}
	if u, err := gate.Who(&http.Request{Header: http.Header{"Authorization": {"Bearer x"}}}); err != nil || u.Asker != filter.Pod || u.Name != "" {
		t.Errorf("somebody with a token is %+v, %v", u, err)
	}
	again, err := EnsureAuthority(p, "a")
	if err != nil || !bytes.Equal(again.PEM(), a.PEM()) {
		t.Errorf("the authority changed: %v", err)
	}
	if renamed, err := EnsureAuthority(p, "c"); err != nil || bytes.Equal(renamed.PEM(), a.PEM()) {
		t.Errorf("the authority of another name stays: %v", err)
	}
}

func TestServingIsForTheseNames(t *testing.T) {
	a, _ := authority(t, "a")
	pair, err := a.Serving([]string{"kubernetes.default.svc"}, []net.IP{net.IPv4(10, 43, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	for name, want := range map[string]bool{"kubernetes.default.svc": true, "10.43.0.1": true, "10.43.0.2": false, "example.org": false} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokens(t *testing.T) {
	a, _ := authority(t, "a")
	server, _ := authority(t, "server") // stands for the server's key
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: server.key.Public(), Algorithm: "ES256"}}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	alive := true
	tokens := &Tokens{Keys: func() []byte { return set }, Local: a, Now: func() time.Time { return now }, Alive: func(ns, name, uid string) bool {
		return alive && ns == "default" && name == "pod" && uid == "1"
	}}
	claims := KubernetesClaims{Namespace: "default", Account: Ref{Name: "reader"}, Pod: &Ref{Name: "pod", UID: "1"}}
	token, expires, err := tokens.Issue(claims, []string{"api"})
	if err != nil {
		t.Fatal(err)
	}
	u, err := tokens.User(token, []string{"api"})
	if err != nil || u.Name != "system:serviceaccount:default:reader" || len(u.Groups) != 3 {
		t.Errorf("the holder is %+v, %v", u, err)
	}
	if _, err := tokens.User(token, []string{"vault"}); err == nil {
		t.Error("a token for another service is taken")
	}
	stranger, _ := authority(t, "b")
	if forged, _, err := (&Tokens{Local: stranger, Now: tokens.Now}).Issue(claims, []string{"api"}); err != nil {
		t.Fatal(err)
	} else if _, err := tokens.Parse(forged); err == nil {
		t.Error("a token of another node is taken")
	}
	if end, ok := Expiry(token); !ok || end.Sub(expires).Abs() > time.Second {
		t.Errorf("it expires at %v, not %v", end, expires)
	}
	alive = false
	if _, err := tokens.Parse(token); err == nil {
		t.Error("the token of a pod that is gone is taken")
	}
	alive, now = true, expires.Add(2*time.Minute)
	if _, err := tokens.Parse(token); err == nil {
		t.Error("a token that has expired is taken")
	}
	if _, err := tokens.Parse("eyJhbGciOiJub25lIn0.e30."); err == nil {
		t.Error("a token without a signature is taken")
	}
}

func TestRules(t *testing.T) {
	rule := func(group, resource string, names []string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names, Verbs: verbs}
	}
	rules := Rules{
		ClusterRoles: map[string]*rbacv1.ClusterRole{
			"view": {Rules: []rbacv1.PolicyRule{rule("", "configmaps", nil, "get", "list"), {NonResourceURLs: []string{"/version", "/api/*"}, Verbs: []string{"get"}}}},
			"all":  {Rules: []rbacv1.PolicyRule{rule("*", "*", nil, "*")}},
		},
		Roles: map[string]*rbacv1.Role{"shop/one": {Rules: []rbacv1.PolicyRule{rule("", "secrets", []string{"password"}, "get"), rule("", "pods/log", nil, "get")}}},
		ClusterRoleBindings: []*rbacv1.ClusterRoleBinding{
			{RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "r", Namespace: "shop"}}},
			{RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "all"}, Subjects: []rbacv1.Subject{{Kind: "Group", Name: "admins"}}},
		},
		RoleBindings: []*rbacv1.RoleBinding{
			{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "one"}, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "r"}}},
			{ObjectMeta: metav1.ObjectMeta{Namespace: "farm"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "missing"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "u"}}},
		},
	}
	reader := User{Name: "system:serviceaccount:shop:r"}
	for _, c := range []struct {
		user User
		Action
		want bool
	}{
		{reader, Action{Verb: "list", Resource: "configmaps", Namespace: "farm"}, true},
		{reader, Action{Verb: "watch", Resource: "configmaps", Namespace: "farm"}, false},
		{reader, Action{Verb: "get", Resource: "secrets", Namespace: "shop", Name: "password"}, true},
		{reader, Action{Verb: "get", Resource: "secrets", Namespace: "shop", Name: "other"}, false},
		{reader, Action{Verb: "list", Resource: "secrets", Namespace: "shop"}, false},
		{reader, Action{Verb: "get", Resource: "secrets", Namespace: "farm", Name: "password"}, false},
		{reader, Action{Verb: "get", Resource: "pods", Subresource: "log", Namespace: "shop", Name: "p"}, true},
		{reader, Action{Verb: "get", Resource: "pods", Namespace: "shop", Name: "p"}, false},
		{reader, Action{Verb: "get", Path: "/api/v1"}, true},
		{reader, Action{Verb: "get", Path: "/metrics"}, false},
		{User{Name: "u"}, Action{Verb: "get", Resource: "pods", Namespace: "farm"}, false},
		{User{Name: "x", Groups: []string{"admins"}}, Action{Verb: "delete", Group: "apps", Resource: "deployments", Subresource: "scale"}, true},
		{User{Name: "x"}, Action{Verb: "get", Resource: "configmaps"}, false},
	} {
		if got := rules.Allows(c.user, c.Action); got != c.want {
			t.Errorf("%s %+v: %v", c.user.Name, c.Action, got)
		}
	}
}
