package proxy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// write answers everything that is not a plain read.
func (p *Proxy) write(w http.ResponseWriter, r *http.Request, q *question) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.fail(w, r, apierrors.NewRequestEntityTooLargeError(err.Error()))
		return
	}
	if q.user.Asker == filter.Kubelet && isReview(q) && p.reviewOperator(w, r, q, body) {
		return
	}
	if !p.online(r) {
		p.writeHere(w, r, q, body)
		return
	}
	if q.user.Asker == filter.Operator {
		p.fail(w, r, apierrors.NewForbidden(q.resource.GroupResource(), q.Name, fmt.Errorf("kedge kubectl --local shows this node's own view and changes nothing in the cluster%s", restartHint(q))))
		return
	}
	if isPodStatus(q) {
		p.supersede(q.Namespace, q.Name)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	p.forward(w, r, q, func(err error) {
		if p.cfg.Link.Up() {
			p.fail(w, r, p.offline(q, err.Error()))
			return
		}
		p.writeHere(w, r, q, body)
	})
}

// restartHint tells an operator who wants to delete a pod, which only the server can do, how to restart it.
func restartHint(q *question) string {
	if q.user.Asker != filter.Operator || q.Verb != "delete" || q.Resource != "pods" || q.Name == "" {
		return ""
	}
	return fmt.Sprintf("; to restart this pod on this node: kedge crictl stopp $(kedge crictl pods -q --namespace %s --name '^%s$')", q.Namespace, q.Name)
}

func isPodStatus(q *question) bool {
	return q.user.Asker == filter.Kubelet && q.Verb == "patch" && q.Resource == "pods" && q.Subresource == "status"
}

func isReview(q *question) bool {
	return q.Verb == "create" && (q.Resource == "subjectaccessreviews" || q.Resource == "tokenreviews")
}

// writeHere takes what a node may write while it is cut off, and refuses the rest.
func (p *Proxy) writeHere(w http.ResponseWriter, r *http.Request, q *question, body []byte) {
	what := q.Verb + " " + q.Resource
	if q.Subresource != "" {
		what += "/" + q.Subresource
	}
	kubelet := q.user.Asker == filter.Kubelet
	switch {
	case q.user.Asker == filter.Pod || q.user.Asker == filter.Operator:
		p.fail(w, r, p.offline(q, "nothing can be changed until the server can be reached"+restartHint(q)))
	case q.Verb == "create" && q.Resource == "events":
		p.echo(w, r, q, body) // told to nobody: what happened shows in the status
	case q.Verb == "patch" && q.Resource == "events":
		p.fail(w, r, apierrors.NewNotFound(q.resource.GroupResource(), q.Name)) // makes the recorder create one
	case kubelet && isReview(q):
		p.review(w, r, q, body)
	case kubelet && what == "create serviceaccounts/token":
		p.tokenHere(w, r, q, body)
	case kubelet && what == "patch pods/status", kubelet && what == "patch nodes/status":
		p.patchHere(w, r, q, body)
	case kubelet && what == "delete pods":
		p.deleteHere(w, r, q)
	case kubelet && what == "create nodes":
		p.registerHere(w, r, q)
	case kubelet && (what == "update leases" || what == "create leases"):
		p.leaseHere(w, r, body)
	default:
		p.fail(w, r, p.offline(q, "nothing can be created or changed until the server can be reached"))
	}
}

// echo answers as if an object had been created.
func (p *Proxy) echo(w http.ResponseWriter, r *http.Request, q *question, body []byte) {
	o, err := object.Read(r.Header.Get("Content-Type"), body)
	if err != nil {
		p.fail(w, r, apierrors.NewBadRequest(err.Error()))
		return
	}
	p.answer(w, r, http.StatusCreated, o)
}

// scopeOf is the scope that the kubelet follows an object of its own in, if the object is there.
func (p *Proxy) scopeOf(q *question) (*cache.Scope, *object.Object) {
	var scope *cache.Scope
	var found *object.Object
	p.cfg.Cache.Each(q.resource, func(s *cache.Scope) {
		if !mayRead(q.user, s.Key()) || s.Key().Seen {
			return
		}
		if o, _ := s.Get(object.Key(q.Namespace, q.Name)); o != nil {
			scope, found = s, o
		}
	})
	return scope, found
}

// patchHere applies a patch of a status to what the node holds. That of a pod is sent to the server later.
func (p *Proxy) patchHere(w http.ResponseWriter, r *http.Request, q *question, body []byte) {
	scope, old := p.scopeOf(q)
	if scope == nil {
		p.fail(w, r, p.offline(q, "it does not hold this object"))
		return
	}
	patched, err := patch(old, r.Header.Get("Content-Type"), body)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	o, err := object.Of(old.Kind, patched)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	if o.UID != old.UID {
		p.fail(w, r, apierrors.NewConflict(q.resource.GroupResource(), q.Name, fmt.Errorf("the object on this node has UID %s", old.UID)))
		return
	}
	if pod, ok := patched.(*corev1.Pod); ok {
		if err := p.holdStatus(pod); err != nil {
			p.fail(w, r, err)
			return
		}
	}
	p.cfg.Cache.Each(q.resource, func(s *cache.Scope) { s.SetLocal(o) }) // whoever reads it sees the same
	p.answer(w, r, http.StatusOK, o)
}

// patch applies a strategic merge patch.
func patch(old *object.Object, contentType string, body []byte) (runtime.Object, error) {
	if contentType != string(types.StrategicMergePatchType) {
		return nil, apierrors.NewServiceUnavailable("offline: only strategic merge patches are taken")
	}
	decoded, err := old.Decode()
	if err != nil {
		return nil, err
	}
	before, err := json.Marshal(decoded)
	if err != nil {
		return nil, err
	}
	after, err := strategicpatch.StrategicMergePatch(before, body, decoded)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	fresh, err := object.Read(object.MediaJSON, after)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return fresh.Decode()
}

// deleteHere lets the kubelet finish a pod that the server had asked it to end.
func (p *Proxy) deleteHere(w http.ResponseWriter, r *http.Request, q *question) {
	scope, old := p.scopeOf(q)
	if scope == nil {
		p.fail(w, r, apierrors.NewNotFound(q.resource.GroupResource(), q.Name))
		return
	}
	if m, err := old.Meta(); err != nil || m.DeletionTimestamp == nil {
		p.fail(w, r, p.offline(q, "this pod was not asked to end"))
		return
	}
	if err := p.holdDelete(old); err != nil {
		p.fail(w, r, err)
		return
	}
	p.cfg.Cache.Each(q.resource, func(s *cache.Scope) { s.Hide(old) })
	p.answer(w, r, http.StatusOK, old)
}

// registerHere answers the kubelet's first request: the node exists if the server knew it.
func (p *Proxy) registerHere(w http.ResponseWriter, r *http.Request, q *question) {
	known := *q
	known.Name = p.cfg.NodeName
	if scope, _ := p.scopeOf(&known); scope == nil {
		p.fail(w, r, p.offline(q, "it has never registered"))
		return
	}
	p.fail(w, r, apierrors.NewAlreadyExists(q.resource.GroupResource(), p.cfg.NodeName))
}

// leaseHere takes a sign of life: the server will see the next one.
func (p *Proxy) leaseHere(w http.ResponseWriter, r *http.Request, body []byte) {
	o, err := object.Read(r.Header.Get("Content-Type"), body)
	if err != nil || o.Kind != coordinationv1.SchemeGroupVersion.WithKind("Lease") {
		p.fail(w, r, apierrors.NewBadRequest("this is not a lease"))
		return
	}
	p.answer(w, r, http.StatusOK, o)
}

// journalBucket keeps the writes that the server must still be told.
const journalBucket = "journal"

// heldWrite is one of them.
type heldWrite struct {
	Seq       uint64          `json:"seq"`
	Delete    bool            `json:"delete,omitempty"`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	UID       string          `json:"uid"`
	Status    json.RawMessage `json:"status,omitempty"`
}

// held returns the writes in the order in which they were made.
func (p *Proxy) held() []heldWrite {
	var out []heldWrite
	for _, v := range p.cfg.Cache.Values(journalBucket) {
		var e heldWrite
		if json.Unmarshal(v, &e) == nil {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b heldWrite) int { return cmp.Compare(a.Seq, b.Seq) })
	return out
}

// Held is how many writes wait for the server.
func (p *Proxy) Held() int { return len(p.cfg.Cache.Values(journalBucket)) }

// hold keeps a write in the place of an earlier one to the same pod, on disk when it returns.
func (p *Proxy) hold(e heldWrite) error {
	p.journal.Lock()
	defer p.journal.Unlock()
	p.seq++
	e.Seq = p.seq
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("keep write: %w", err)
	}
	p.cfg.Cache.SetValue(journalBucket, object.Key(e.Namespace, e.Name), data)
	p.cfg.Cache.Sync()
	return nil
}

func (p *Proxy) holdStatus(pod *corev1.Pod) error {
	status, err := json.Marshal(&pod.Status)
	if err != nil {
		return fmt.Errorf("keep status: %w", err)
	}
	return p.hold(heldWrite{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Status: status})
}

func (p *Proxy) holdDelete(o *object.Object) error {
	return p.hold(heldWrite{Namespace: o.Namespace, Name: o.Name, UID: o.UID, Delete: true})
}

// supersede drops the write that is held for a pod, because a newer one follows. One that is being sent is waited for.
func (p *Proxy) supersede(namespace, name string) {
	p.journal.Lock()
	defer p.journal.Unlock()
	p.cfg.Cache.SetValue(journalBucket, object.Key(namespace, name), nil)
}
