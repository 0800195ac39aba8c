package addons

import (
	"context"
	"fmt"
	"github.com/kedge-io/kedge/pkg/addons/manifest"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/addons/v1alpha1"
	"github.com/kedge-io/kedge/pkg/kube"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// workers is how many files are worked on at the same time: enough that the datastore commits many writes together.
const workers = 8

// pass carries out the decisions about all files once. It is thrown away afterwards.
type pass struct {
	client *kube.Client
	log    *slog.Logger
	server string
	now    time.Time
	files  map[string]file
	inv    inventory
	claims map[string]string

	mu      sync.Mutex
	results map[string]*result // by path, of the files that are being applied
	down    error              // the API cannot be reached: stop
}

// result collects what happened to the objects of one file.
type result struct {
	applied []kube.Ref
	errs    []error
	refused string // set when the dry run found that the file must not be applied
}

// run applies, then prunes, then removes: an object that moved to another file is claimed there before anything is pruned.
// The error says that the API could not be reached, and that the rest of the pass is still to be done.
func (p *pass) run(ctx context.Context, steps []step) error {
	var applying []step
	for _, s := range steps {
		if s.do == apply {
			applying = append(applying, s)
			p.results[s.rel] = &result{}
		}
	}
	p.each(ctx, applying, p.prepare)
	p.each(ctx, applying, func(ctx context.Context, s step) error { return p.applyObjects(ctx, s, true) })
	p.client.ForgetKinds() // definitions may be new
	p.each(ctx, applying, func(ctx context.Context, s step) error { return p.applyObjects(ctx, s, false) })
	p.parallel(steps, func(s step) {
		switch err := p.finish(ctx, s); {
		case kube.Unavailable(err):
			p.fail(fmt.Errorf("add-on %s: %w", s.name, err))
		case err != nil:
			p.log.Warn("add-on record not written", "name", s.name, "error", err)
			p.tracked(s.rel).failed(p.now)
		}
	})
	p.client.ForgetKinds() // until the next change of a file nobody needs the memory
	return p.down
}

// each runs do for every step, a few at a time, until the API goes away. Other errors count against the step's file.
func (p *pass) each(ctx context.Context, steps []step, do func(context.Context, step) error) {
	p.parallel(steps, func(s step) {
		switch err := do(ctx, s); {
		case kube.Unavailable(err):
			p.fail(err)
		case err != nil:
			p.results[s.rel].errs = append(p.results[s.rel].errs, err)
		}
	})
}

// parallel runs do for every step, until the API goes away. Steps are of different files.
func (p *pass) parallel(steps []step, do func(step)) {
	queue := make(chan step)
	var wg sync.WaitGroup
	for range min(workers, len(steps)) {
		wg.Go(func() {
			for s := range queue {
				if !p.isDown() {
					do(s)
				}
			}
		})
	}
	for _, s := range steps {
		queue <- s
	}
	close(queue)
	wg.Wait()
}

// tracked is what the inventory knows of a file.
func (p *pass) tracked(rel string) *tracked {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inv[rel]
}

// drop takes a file out of the inventory.
func (p *pass) drop(rel string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.inv, rel)
}

func (p *pass) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down == nil {
		p.down = err
	}
}

func (p *pass) isDown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down != nil
}

// prepare checks changed files with a dry run, so that a file the server refuses changes nothing, and then notes on the
// record what is about to be applied, so that nothing is forgotten if kedge dies meanwhile.
func (p *pass) prepare(ctx context.Context, s step) error {
	f, t, r := p.files[s.rel], p.tracked(s.rel), p.results[s.rel]
	for _, obj := range t.objects {
		annotations := obj.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[v1alpha1.AnnotationAddOn] = s.name
		obj.SetAnnotations(annotations)
	}
	if !f.packaged && len(t.objects) > 1 && (s.record == nil || s.record.Status.Checksum != f.checksum) {
		if err := p.dryRun(ctx, t.objects, r); err != nil || r.refused != "" {
			return err
		}
	}
	all := union(s.record, f.refs)
	if s.record != nil && len(all) == len(s.record.Status.Objects) {
		return nil
	}
	intent := outcome{reason: v1alpha1.ReasonWaiting, message: "being applied", objects: all}
	return store(ctx, p.client, newRecord(s, f, intent, p.server, p.now), s.record)
}

func (p *pass) dryRun(ctx context.Context, objects []*unstructured.Unstructured, r *result) error {
	for _, obj := range objects {
		_, err := p.client.Apply(ctx, obj, kube.ApplyOptions{Manager: fieldManager, DryRun: true})
		switch {
		case kube.Unavailable(err):
			return err
		case kube.Refused(err) && !strings.Contains(err.Error(), "does not support dry run"):
			r.refused = fmt.Sprintf("%s: %s", kube.RefOf(obj), plain(err))
			return nil
		}
	}
	return nil
}

// applyObjects applies the objects that all files need early, or the others.
func (p *pass) applyObjects(ctx context.Context, s step, early bool) error {
	t, r := p.tracked(s.rel), p.results[s.rel]
	if r.refused != "" {
		return nil
	}
	for _, obj := range t.objects {
		if manifest.Early(kube.RefOf(obj)) != early {
			continue
		}
		live, err := p.client.Apply(ctx, obj, kube.ApplyOptions{Manager: fieldManager})
		switch {
		case kube.Unavailable(err):
			return err
		case err != nil:
			r.errs = append(r.errs, fmt.Errorf("%s: %w", kube.RefOf(obj), err))
		default:
			r.applied = append(r.applied, kube.RefOf(live))
		}
	}
	return nil
}

// finish prunes, writes the record, and tells people what is new.
func (p *pass) finish(ctx context.Context, s step) error {
	t, f := p.tracked(s.rel), p.files[s.rel]
	var o outcome
	switch s.do {
	case leave:
		switch {
		case f.gone && s.record == nil:
			p.drop(s.rel)
		case !f.missing && !f.pending && !f.done: // disabled, and nothing left of it
			t.succeeded()
		}
		return nil
	case remove:
		return p.remove(ctx, s, t)
	case report:
		o = outcome{reason: s.reason, message: s.message, objects: recorded(s.record)}
	case apply:
		var err error
		if o, err = p.conclude(ctx, s); err != nil {
			return err
		}
	}
	record := newRecord(s, f, o, p.server, p.now)
	if err := store(ctx, p.client, record, s.record); err != nil {
		return err
	}
	p.tell(ctx, s, t, o, record)
	switch {
	case o.full || o.reason == v1alpha1.ReasonSkipped, s.do == report && t.problem != "":
		t.succeeded()
	default:
		t.failed(p.now)
	}
	return nil
}

// conclude turns the result of an applied file into an outcome, and prunes what the file dropped once all of it is applied.
func (p *pass) conclude(ctx context.Context, s step) (outcome, error) {
	r, f := p.results[s.rel], p.files[s.rel]
	switch {
	case len(r.applied) == 0 && len(r.errs) == 0 && r.refused == "":
		return outcome{}, fmt.Errorf("nothing was applied of %s", s.rel) // never prune on the ground of nothing
	case r.refused != "":
		return outcome{reason: v1alpha1.ReasonInvalid, message: r.refused, objects: recorded(s.record)}, nil
	case len(r.errs) > 0:
		reason, message := describe(r.errs)
		return outcome{reason: reason, message: message, objects: union(s.record, f.refs)}, nil
	}
	var old []v1alpha1.ObjectRef
	if s.record != nil {
		old = s.record.Status.Objects
	}
	left, err := p.prune(ctx, s.name, dropped(old, r.applied, s.rel, p.claims))
	if kube.Unavailable(err) {
		return outcome{}, err
	}
	if err != nil {
		return outcome{reason: v1alpha1.ReasonPruning, message: err.Error(), objects: append(r.applied, left...)}, nil
	}
	return outcome{reason: v1alpha1.ReasonApplied, message: count(len(r.applied)), objects: r.applied, full: true}, nil
}

func (p *pass) remove(ctx context.Context, s step, t *tracked) error {
	refs := dropped(s.record.Status.Objects, nil, s.rel, p.claims)
	left, err := p.prune(ctx, s.name, refs)
	if kube.Unavailable(err) {
		return err
	}
	if err != nil {
		o := outcome{reason: v1alpha1.ReasonPruning, message: err.Error(), objects: left}
		record := newRecord(s, p.files[s.rel], o, p.server, p.now)
		if err := store(ctx, p.client, record, s.record); err != nil {
			return err
		}
		p.tell(ctx, s, t, o, record)
		t.failed(p.now)
		return nil
	}
	if err := deleteRecord(ctx, p.client, s.name); err != nil {
		return err
	}
	p.log.Info("add-on removed", "name", s.name, "objects", len(refs))
	announce(ctx, p.client, s.record, "Removed", s.rel+" is gone or disabled: "+count(len(refs))+" removed", true, p.now)
	t.succeeded()
	if !t.missingSince.IsZero() {
		p.drop(s.rel)
	}
	return nil
}

func (p *pass) prune(ctx context.Context, name string, refs []kube.Ref) ([]kube.Ref, error) {
	return p.client.Prune(ctx, refs, func(live *unstructured.Unstructured) bool {
		annotations := live.GetAnnotations()
		return annotations[v1alpha1.AnnotationAddOn] == name && annotations[v1alpha1.AnnotationKeep] != "true"
	})
}

// tell logs and announces what differs from what was said before.
func (p *pass) tell(ctx context.Context, s step, t *tracked, o outcome, record *v1alpha1.AddOn) {
	before := readyCondition(s.record)
	good := o.reason == v1alpha1.ReasonApplied || o.reason == v1alpha1.ReasonSkipped
	news := before.Reason != o.reason || before.Message != shorten(o.message) ||
		o.full && s.record.Status.Checksum != record.Status.Checksum
	switch {
	case news && o.reason == v1alpha1.ReasonSkipped:
		p.log.Info("add-on skipped", "name", s.name, "source", s.rel)
	case good && news:
		p.log.Info("add-on applied", "name", s.name, "source", s.rel, "result", o.message)
	case !good && t.said != o.message && (o.reason != v1alpha1.ReasonWaiting || t.failures > 5):
		p.log.Warn("add-on not applied", "name", s.name, "source", s.rel, "reason", o.reason, "message", o.message)
		t.said = o.message
	}
	if news {
		announce(ctx, p.client, record, o.reason, o.message, good, p.now)
	}
}

// describe sums up why objects could not be applied. Waiting is only said when waiting is all that is needed.
func describe(errs []error) (reason, message string) {
	reason = v1alpha1.ReasonWaiting
	worst := errs[0]
	for _, err := range errs {
		if !kube.MissingKind(err) && !kube.MissingNamespace(err) {
			reason, worst = v1alpha1.ReasonFailed, err
			break
		}
	}
	message = plain(worst)
	if len(errs) > 1 {
		message += fmt.Sprintf(" (and %d more)", len(errs)-1)
	}
	return reason, message
}

var (
	applyPreamble = regexp.MustCompile(`failed to create typed patch object \([^)]*\): `)
	applyValue    = regexp.MustCompile(`&value\.value\w+\{Value:(.*?)\}`)
)

// plain takes the API server's inner workings out of an error.
func plain(err error) string {
	return applyValue.ReplaceAllString(applyPreamble.ReplaceAllString(err.Error(), ""), "$1")
}

func count(objects int) string {
	if objects == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", objects)
}
