package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/identity"
	"github.com/kedge-io/kedge/pkg/autonomy/link"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// sendTime bounds one write to the server.
const sendTime = 10 * time.Second

// shortAnswer asks the server not to send the whole object back.
const shortAnswer = object.MediaProto + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1," + object.MediaJSON

// againAfter is when what could not be sent is sent again.
const againAfter = 5 * time.Second

// Replay tells the server what it missed, each time it can be reached again, until ctx is done.
func (p *Proxy) Replay(ctx context.Context) {
	var before []corev1.NodeCondition
	for {
		state, _, changed := p.cfg.Link.State()
		var again <-chan time.Time
		if state != link.Up {
			_, node := p.node()
			before = reported(node)
		} else if !p.replayAll(ctx, before) {
			again = time.After(againAfter)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

// replayAll sends the state of the node, and then what is held, in order. What the server refuses is dropped and said; what cannot be sent waits for
// the next time. It says whether nothing is left.
func (p *Proxy) replayAll(ctx context.Context, node []corev1.NodeCondition) bool {
	if err := p.replayNode(ctx, node); err != nil {
		p.cfg.Log.Debug("the node's status waits for the kubelet", "error", err)
	}
	for _, e := range p.held() {
		if ctx.Err() != nil || !p.cfg.Link.Up() {
			return false
		}
		if err := p.replayOne(ctx, e); err != nil {
			p.cfg.Log.Warn("a status of the time without the server could not be sent", "pod", e.Namespace+"/"+e.Name, "error", err)
		}
	}
	return len(p.held()) == 0
}

// replayOne sends one write, unless a newer one took its place or the pod is another by now.
func (p *Proxy) replayOne(ctx context.Context, e heldWrite) error {
	p.journal.Lock()
	defer p.journal.Unlock()
	key := object.Key(e.Namespace, e.Name)
	var now heldWrite
	if v, ok := p.cfg.Cache.Value(journalBucket, key); !ok || json.Unmarshal(v, &now) != nil || now.Seq != e.Seq {
		return nil
	}
	path := "/api/v1/namespaces/" + e.Namespace + "/pods/" + e.Name
	var code int
	var err error
	if e.Delete {
		none, uid := int64(0), types.UID(e.UID)
		body := metav1.DeleteOptions{GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &uid}}
		code, err = p.send(ctx, http.MethodDelete, path, object.MediaJSON, body)
	} else {
		body := map[string]any{"metadata": map[string]any{"uid": e.UID}, "status": e.Status}
		code, err = p.send(ctx, http.MethodPatch, path+"/status", string(types.StrategicMergePatchType), body)
	}
	if err != nil && (code == 0 || code >= http.StatusInternalServerError || code == http.StatusTooManyRequests) {
		return err // it is tried again
	}
	p.cfg.Cache.SetValue(journalBucket, key, nil)
	if code == http.StatusNotFound || code == http.StatusConflict {
		return nil // the pod is gone, or another one has its name
	}
	return err
}

// node is this node as it is shown here, and the scope that has it, or nil.
func (p *Proxy) node() (*cache.Scope, *corev1.Node) {
	q := &question{
		user: identity.User{Asker: filter.Kubelet}, resource: corev1.SchemeGroupVersion.WithResource("nodes"),
		RequestInfo: &request.RequestInfo{Resource: "nodes", Name: p.cfg.NodeName},
	}
	scope, shown := p.scopeOf(q)
	if scope == nil {
		return nil, nil
	}
	decoded, err := shown.Decode()
	if err != nil {
		return nil, nil // as good as not known
	}
	node, _ := decoded.(*corev1.Node)
	return scope, node
}

// reported are the conditions that the kubelet reports.
func reported(node *corev1.Node) []corev1.NodeCondition {
	if node == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(node.Status.Conditions), func(c corev1.NodeCondition) bool {
		kubelets := c.Type == corev1.NodeReady || c.Type == corev1.NodeMemoryPressure || c.Type == corev1.NodeDiskPressure || c.Type == corev1.NodePIDPressure
		return !kubelets || c.Status == corev1.ConditionUnknown
	})
}

// replayNode shows the server that the node is as before, without waiting for the kubelet's next time, when it had to assume otherwise.
func (p *Proxy) replayNode(ctx context.Context, before []corev1.NodeCondition) error {
	scope, _ := p.node()
	if scope == nil || len(before) == 0 {
		return nil
	}
	if err := scope.Await(ctx); err != nil { // for what happened to the node meanwhile
		return err
	}
	_, now := p.node()
	if now == nil {
		return nil
	}
	var status any
	if scope.Local(p.cfg.NodeName) != nil { // the kubelet believes that it has been told
		now.Status.Conditions = seenNow(reported(now))
		status = &now.Status
	} else if len(reported(now)) < len(before) {
		status = map[string]any{"conditions": seenNow(before)}
	} else {
		return nil
	}
	_, err := p.send(ctx, http.MethodPatch, "/api/v1/nodes/"+p.cfg.NodeName+"/status", string(types.StrategicMergePatchType),
		map[string]any{"status": status})
	return err
}

func seenNow(conditions []corev1.NodeCondition) []corev1.NodeCondition {
	for i := range conditions {
		conditions[i].LastHeartbeatTime = metav1.Now()
	}
	return conditions
}

// send makes one request as the kubelet.
func (p *Proxy) send(ctx context.Context, method, path, contentType string, body any) (code int, err error) {
	data, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	transport, err := p.cfg.Link.Transport(p.cfg.Kubelet, false)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, method, p.cfg.Link.Server().JoinPath(path).String(), bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", shortAnswer)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		p.cfg.Link.Doubt()
		return 0, err
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // a part of the reason is as good
	if resp.StatusCode >= http.StatusBadRequest {
		return resp.StatusCode, fmt.Errorf("the server says %w", object.ReadError(resp.Header.Get("Content-Type"), answer, resp.StatusCode))
	}
	return resp.StatusCode, nil
}

// PodAlive says whether a pod of this node exists, as far as the node knows.
func PodAlive(c *cache.Cache, node, namespace, name, uid string) bool {
	s := c.Scope(cache.PodsKey(node), false)
	if s == nil {
		return false
	}
	o, _ := s.Get(object.Key(namespace, name))
	return o != nil && o.UID == uid
}
