package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/identity"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// tokens is the bucket of the tokens that the server issued for pods of this node.
const tokens = "tokens"

// minimumLife is what must be left of a token of the server that is handed out again.
const minimumLife = 10 * time.Minute

// reviewOperator answers the kubelet's question about the local operator, whom the server does not know. It says whether that was the question.
func (p *Proxy) reviewOperator(w http.ResponseWriter, r *http.Request, q *question, body []byte) bool {
	if q.Resource != "subjectaccessreviews" {
		return false
	}
	review, err := readReview[*authorizationv1.SubjectAccessReview](r, body)
	if err != nil || review.Spec.User != identity.OperatorName {
		return false
	}
	a := review.Spec.ResourceAttributes
	review.Status.Allowed = a != nil && a.Resource == "nodes" && a.Name == p.cfg.NodeName
	p.answerAny(w, r, http.StatusCreated, authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"), review)
	return true
}

// readReview reads the body of a request.
func readReview[T any](r *http.Request, body []byte) (T, error) {
	var none T
	o, err := object.Read(r.Header.Get("Content-Type"), body)
	if err != nil {
		return none, err
	}
	decoded, err := o.Decode()
	if err != nil {
		return none, err
	}
	review, ok := decoded.(T)
	if !ok {
		return none, fmt.Errorf("body is a %T", decoded)
	}
	return review, nil
}

// review answers whether somebody is who they say, or may do something, as far as the node knows.
func (p *Proxy) review(w http.ResponseWriter, r *http.Request, q *question, body []byte) {
	if q.Resource == "tokenreviews" {
		review, err := readReview[*authenticationv1.TokenReview](r, body)
		if err != nil {
			p.fail(w, r, apierrors.NewBadRequest(err.Error()))
			return
		}
		audiences := review.Spec.Audiences
		if len(audiences) == 0 {
			audiences = p.cfg.Audiences
		}
		if user, err := p.cfg.Tokens.User(review.Spec.Token, audiences); err != nil {
			review.Status.Error = err.Error()
		} else {
			review.Status.Authenticated, review.Status.Audiences = true, audiences
			review.Status.User = authenticationv1.UserInfo{Username: user.Name, UID: user.UID, Groups: user.Groups}
		}
		review.Spec.Token = ""
		p.answerAny(w, r, http.StatusCreated, authenticationv1.SchemeGroupVersion.WithKind("TokenReview"), review)
		return
	}
	review, err := readReview[*authorizationv1.SubjectAccessReview](r, body)
	if err != nil {
		p.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	review.Status.Allowed = p.rules().Allows(identity.User{Name: review.Spec.User, Groups: review.Spec.Groups}, reviewed(review.Spec))
	if !review.Status.Allowed {
		review.Status.Reason = "node " + p.cfg.NodeName + " is offline and knows no role that allows this"
	}
	p.answerAny(w, r, http.StatusCreated, authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"), review)
}

func reviewed(s authorizationv1.SubjectAccessReviewSpec) identity.Action {
	if n := s.NonResourceAttributes; n != nil {
		return identity.Action{Verb: n.Verb, Path: n.Path}
	}
	a := s.ResourceAttributes
	if a == nil {
		return identity.Action{}
	}
	return identity.Action{
		Verb: a.Verb, Group: a.Group, Resource: a.Resource, Subresource: a.Subresource, Namespace: a.Namespace, Name: a.Name,
	}
}

// tokenKey names the tokens that can stand for each other: same account, pod and audiences.
func tokenKey(q *question, s authenticationv1.TokenRequestSpec) string {
	bound, _ := json.Marshal(s.BoundObjectRef) // plain strings
	audiences, _ := json.Marshal(s.Audiences)
	return q.Namespace + "/" + q.Name + " " + string(bound) + " " + string(audiences)
}

// keepToken keeps a token that the server issued for a pod of this node.
func (p *Proxy) keepToken(q *question, contentType string, data []byte) {
	o, err := object.Read(contentType, data)
	if err != nil {
		return
	}
	decoded, err := o.Decode()
	if err != nil {
		return
	}
	issued, ok := decoded.(*authenticationv1.TokenRequest)
	if !ok || q.user.Asker != filter.Kubelet || issued.Status.Token == "" || issued.Spec.BoundObjectRef == nil {
		return
	}
	p.cfg.Cache.SetValue(tokens, tokenKey(q, issued.Spec), []byte(issued.Status.Token))
}

// TidyTokens forgets the tokens of pods that are gone.
func (p *Proxy) TidyTokens() {
	for key, token := range p.cfg.Cache.Values(tokens) {
		if expires, ok := identity.Expiry(string(token)); !ok || time.Now().After(expires) || !p.tokenLives(string(token)) {
			p.cfg.Cache.SetValue(tokens, key, nil)
		}
	}
}

func (p *Proxy) tokenLives(token string) bool {
	c, err := identity.Peek(token)
	return err == nil && c.Kubernetes.Pod != nil &&
		p.cfg.Tokens.Alive(c.Kubernetes.Namespace, c.Kubernetes.Pod.Name, c.Kubernetes.Pod.UID)
}

// tokenHere answers the kubelet's request for a token of a pod of this node: with the server's, as long as that is valid, or with one that only this
// node accepts.
func (p *Proxy) tokenHere(w http.ResponseWriter, r *http.Request, q *question, body []byte) {
	request, err := readReview[*authenticationv1.TokenRequest](r, body)
	if err != nil {
		p.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	pod := request.Spec.BoundObjectRef
	if pod == nil || pod.Kind != "Pod" || !p.cfg.Tokens.Alive(q.Namespace, pod.Name, string(pod.UID)) {
		p.fail(w, r, p.offline(q, "tokens are issued for pods of this node only"))
		return
	}
	if len(request.Spec.Audiences) == 0 {
		request.Spec.Audiences = p.cfg.Audiences
	}
	life := time.Hour
	if s := request.Spec.ExpirationSeconds; s != nil {
		life = time.Duration(*s) * time.Second
	}
	now := time.Now()
	if stored, ok := p.cfg.Cache.Value(tokens, tokenKey(q, request.Spec)); ok {
		if expires, ok := identity.Expiry(string(stored)); ok && expires.Sub(now) > minimumLife {
			if asked := now.Add(life); asked.Before(expires) {
				expires = asked
			}
			request.Status = authenticationv1.TokenRequestStatus{Token: string(stored), ExpirationTimestamp: metav1.NewTime(expires)}
		}
	}
	if request.Status.Token == "" {
		claims := identity.KubernetesClaims{
			Namespace: q.Namespace, Account: identity.Ref{Name: q.Name}, Pod: &identity.Ref{Name: pod.Name, UID: string(pod.UID)},
			Node: &identity.Ref{Name: p.cfg.NodeName},
		}
		token, expires, err := p.cfg.Tokens.Issue(claims, request.Spec.Audiences)
		if err != nil {
			p.fail(w, r, err)
			return
		}
		request.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(expires)}
	}
	p.answerAny(w, r, http.StatusCreated, authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"), request)
}
