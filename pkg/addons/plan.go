package addons

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"github.com/kedge-io/kedge/pkg/addons/manifest"
	"regexp"
	"slices"
	"strings"

	"github.com/kedge-io/kedge/pkg/apis/addons/v1alpha1"
	"github.com/kedge-io/kedge/pkg/kube"
)

// file is what is known about one manifest when a pass decides what to do.
type file struct {
	rel      string
	packaged bool
	skip     bool       // hands off
	missing  bool       // not there at this look
	gone     bool       // missing for long enough to count as deleted
	pending  bool       // not read yet: it is new or changing
	done     bool       // nothing to do: applied as it is, or its next try is not due
	checksum string     // of the content
	problem  string     // why the content cannot be used
	refs     []kube.Ref // objects of the content
}

// action is what a pass does about one file.
type action int

const (
	leave  action = iota // nothing
	apply                // apply the objects, then prune what the record has beyond them
	remove               // prune everything in the record, then delete it
	report               // change nothing but the record
)

// step is the decision about one file.
type step struct {
	name    string // of the AddOn
	rel     string
	do      action
	reason  string // of the Ready condition, for report
	message string
	record  *v1alpha1.AddOn // as stored, or nil
}

// decide compares the folder with the records. It takes files in any order and returns steps in path order, and for each
// object that any file still wants, or may want, which file that is.
func decide(files []file, records []v1alpha1.AddOn, disabled disabledSet) (steps []step, claims map[string]string) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.rel, b.rel) })
	bySource := map[string]*v1alpha1.AddOn{}
	for i := range records {
		bySource[records[i].Spec.Source] = &records[i]
	}
	names := assignNames(files, records)
	owners := ownersOf(files, bySource, disabled)
	for _, f := range files {
		s := step{name: names[f.rel], rel: f.rel, record: bySource[f.rel]}
		s.do, s.reason, s.message = judge(f, s.record, owners, disabled)
		steps = append(steps, s)
	}
	return steps, claimsOf(files, bySource, owners, steps)
}

// judge decides about one file alone.
func judge(f file, record *v1alpha1.AddOn, owners map[string]string, disabled disabledSet) (do action, reason, message string) {
	switch {
	case f.skip && (f.missing || f.done):
		return leave, "", ""
	case f.skip:
		return report, v1alpha1.ReasonSkipped, "hands off: " + f.rel + ".skip exists"
	case disabled.has(f.rel) || f.gone:
		if record == nil {
			return leave, "", ""
		}
		return remove, "", ""
	case f.missing || f.pending || f.done:
		return leave, "", ""
	case f.problem != "":
		return report, v1alpha1.ReasonInvalid, f.problem
	}
	for _, ref := range f.refs {
		if owner := owners[manifest.Identity(ref)]; owner != f.rel {
			return report, v1alpha1.ReasonInvalid, fmt.Sprintf("%s is also in %s: keep it in one file", ref, owner)
		}
	}
	return apply, "", ""
}

// ownersOf says which of the readable files each object belongs to: the one that has it on record, or the first by path.
func ownersOf(files []file, bySource map[string]*v1alpha1.AddOn, disabled disabledSet) map[string]string {
	owners := map[string]string{}
	claim := func(onlyRecorded bool) {
		for _, f := range files {
			if f.missing || f.gone || f.skip || f.problem != "" || disabled.has(f.rel) {
				continue
			}
			recorded := map[string]bool{}
			if record := bySource[f.rel]; record != nil && onlyRecorded {
				for _, ref := range record.Status.Objects {
					recorded[manifest.Identity(kube.Ref(ref))] = true
				}
			}
			for _, ref := range f.refs {
				id := manifest.Identity(ref)
				if _, taken := owners[id]; !taken && (!onlyRecorded || recorded[id]) {
					owners[id] = f.rel
				}
			}
		}
	}
	claim(true)
	claim(false)
	return owners
}

// claimsOf adds to the owners what files that cannot be read now, and files of other servers, have on record.
func claimsOf(files []file, bySource map[string]*v1alpha1.AddOn, owners map[string]string, steps []step) map[string]string {
	claims := map[string]string{}
	for id, rel := range owners {
		claims[id] = rel
	}
	readable := map[string]bool{}
	for _, f := range files {
		readable[f.rel] = len(f.refs) > 0 && f.problem == "" && !f.skip
	}
	removed := map[string]bool{}
	for _, s := range steps {
		removed[s.rel] = s.do == remove
	}
	for source, record := range bySource {
		if readable[source] || removed[source] {
			continue
		}
		for _, ref := range record.Status.Objects {
			if _, taken := claims[manifest.Identity(kube.Ref(ref))]; !taken {
				claims[manifest.Identity(kube.Ref(ref))] = source
			}
		}
	}
	return claims
}

// dropped lists what the record has beyond the wanted objects and no other file claims: what to prune, in order.
func dropped(recorded []v1alpha1.ObjectRef, wanted []kube.Ref, rel string, claims map[string]string) []kube.Ref {
	keep := map[string]bool{}
	for _, ref := range wanted {
		keep[manifest.Identity(ref)] = true
	}
	var out []kube.Ref
	for _, recordedRef := range recorded {
		ref := kube.Ref(recordedRef)
		owner, claimed := claims[manifest.Identity(ref)]
		if !keep[manifest.Identity(ref)] && (!claimed || owner == rel) {
			out = append(out, ref)
		}
	}
	manifest.SortForPrune(out)
	return out
}

var unsafe = regexp.MustCompile(`[^a-z0-9.]+`)

// assignNames names the AddOn of each file after its path. A record keeps its name; a second file that would get a taken
// name gets a suffix made from its path.
func assignNames(files []file, records []v1alpha1.AddOn) map[string]string {
	names, taken := map[string]string{}, map[string]bool{}
	for _, r := range records {
		names[r.Spec.Source] = r.Name
		taken[r.Name] = true
	}
	for _, f := range files {
		if names[f.rel] != "" {
			continue
		}
		name := addonName(f.rel)
		if taken[name] || len(name) > 200 || name == "" {
			sum := sha256.Sum256([]byte(f.rel))
			name = strings.Trim(name[:min(len(name), 200)]+"-"+hex.EncodeToString(sum[:4]), "-.")
		}
		names[f.rel] = name
		taken[name] = true
	}
	return names
}

// addonName makes an object name of a path: team/My_App.yaml becomes team.my-app.
func addonName(rel string) string {
	parts := strings.Split(strings.ReplaceAll(strings.ToLower(stem(rel)), "/", "."), ".")
	var clean []string
	for _, part := range parts {
		if part = strings.Trim(unsafe.ReplaceAllString(part, "-"), "-"); part != "" {
			clean = append(clean, part)
		}
	}
	return strings.Join(clean, ".")
}
