package addons

import (
	"github.com/kedge-io/kedge/pkg/addons/manifest"
	"time"

	"github.com/kedge-io/kedge/pkg/apis/addons/v1alpha1"
	"github.com/kedge-io/kedge/pkg/kube"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// tracked is what this process remembers of one file.
type tracked struct {
	entry        entry
	since        time.Time // when this fingerprint was first seen
	missingSince time.Time // zero while it is there
	read         bool      // checksum, problem, objects and refs belong to entry
	checksum     string
	problem      string
	objects      []*unstructured.Unstructured // until they are applied; then only refs stay
	refs         []kube.Ref
	done         bool // applied or reported as it is
	failures     int  // in a row
	retryAt      time.Time
	said         string // last problem that was logged
}

// inventory is the folder as this process knows it, by path.
type inventory map[string]*tracked

// observe takes in a look at the folder. Files are read once they are quiet; packaged files as soon as they hold what we wrote.
func (inv inventory) observe(now time.Time, seen *sight, packaged map[string]string) {
	present := map[string]bool{}
	for _, e := range seen.entries {
		present[e.rel] = true
		t := inv[e.rel]
		if t == nil {
			t = &tracked{since: now}
			inv[e.rel] = t
		}
		t.see(now, e, packaged[e.rel])
	}
	for rel, t := range inv {
		if present[rel] {
			continue
		}
		t.entry.skip = seen.skips[rel]
		if t.missingSince.IsZero() {
			t.missingSince = now
			t.forget()
		}
	}
}

// adopt remembers the files that records of this server tell of, so that those that went away while kedge was off are noticed.
func (inv inventory) adopt(now time.Time, seen *sight, records []v1alpha1.AddOn, server string) {
	for _, r := range records {
		rel := r.Spec.Source
		if inv[rel] == nil && (r.Spec.Server == server || r.Spec.Server == "") {
			inv[rel] = &tracked{entry: entry{rel: rel, skip: seen.skips[rel]}, missingSince: now}
		}
	}
}

// forget drops what was done with the file: it is read and judged anew.
func (t *tracked) forget() {
	t.read, t.done, t.failures, t.retryAt, t.objects = false, false, 0, time.Time{}, nil
}

func (t *tracked) see(now time.Time, e entry, ours string) {
	switch {
	case !t.missingSince.IsZero() || e.skip != t.entry.skip:
		t.since = now
		t.forget()
	case e.print != t.entry.print || e.problem != t.entry.problem: // perhaps only touched: done stays until it is read
		t.since, t.read, t.failures, t.retryAt = now, false, 0, time.Time{}
	}
	t.missingSince, t.entry = time.Time{}, e
	switch {
	case t.read:
	case e.problem != "":
		t.take("", nil, e.problem)
	default:
		t.load(now, ours)
	}
}

// load reads the file if it is quiet, or holds what we wrote ourselves.
func (t *tracked) load(now time.Time, ours string) {
	lastTouched := time.Unix(0, max(t.entry.print.mtime, t.entry.print.ctime))
	quiet := now.Sub(t.since) >= settle || now.Sub(lastTouched) >= settle
	if !quiet && ours == "" {
		return
	}
	data, checksum, ok, err := readManifest(t.entry)
	switch {
	case !ok:
		t.since = now
	case err != nil:
		t.take("", nil, err.Error())
	case !quiet && checksum != ours:
	case t.done && checksum == t.checksum: // touched, not changed
		t.read = true
	default:
		objects, err := manifest.Parse(data)
		if err != nil {
			t.take(checksum, nil, err.Error())
			return
		}
		manifest.SortForApply(objects)
		t.take(checksum, objects, "")
	}
}

// take replaces what is known of the content.
func (t *tracked) take(checksum string, objects []*unstructured.Unstructured, problem string) {
	t.done = t.done && problem == t.problem && checksum == t.checksum
	t.read, t.checksum, t.problem, t.objects, t.refs = true, checksum, problem, objects, nil
	for _, obj := range objects {
		t.refs = append(t.refs, kube.RefOf(obj))
	}
}

// files shows the inventory to decide.
func (inv inventory) files(now time.Time, packaged map[string]string) []file {
	var out []file
	for rel, t := range inv {
		missing := !t.missingSince.IsZero()
		out = append(out, file{
			rel: rel, packaged: t.checksum != "" && t.checksum == packaged[rel], skip: t.entry.skip,
			missing: missing, gone: missing && now.Sub(t.missingSince) >= settle,
			pending: !missing && !t.read, done: t.done || now.Before(t.retryAt),
			checksum: t.checksum, problem: t.problem, refs: t.refs,
		})
	}
	return out
}

// nextLook is how long until something in the inventory may be due.
func (inv inventory) nextLook(now time.Time) time.Duration {
	wait := rescan
	for _, t := range inv {
		missing := !t.missingSince.IsZero()
		switch {
		case !t.retryAt.IsZero():
			wait = min(wait, t.retryAt.Sub(now))
		case missing && !t.entry.skip:
			wait = min(wait, max(0, settle-now.Sub(t.missingSince)))
		case !missing && !t.read:
			wait = min(wait, settle)
		}
	}
	return max(wait, minLook)
}

// succeeded notes that the file needs nothing more until it changes.
func (t *tracked) succeeded() {
	t.done, t.failures, t.retryAt, t.said, t.objects = true, 0, time.Time{}, "", nil
}

// failed notes when to try again.
func (t *tracked) failed(now time.Time) {
	t.failures++
	t.retryAt = now.Add(retryDelay(t.failures))
}

// retryDelay doubles from a quarter of a second to five minutes.
func retryDelay(failures int) time.Duration {
	return min(250*time.Millisecond<<min(failures-1, 20), 5*time.Minute)
}
