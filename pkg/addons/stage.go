package addons

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// packagedList remembers which files in the folder are ours, to remove those that a newer kedge no longer brings.
const packagedList = ".packaged.json"

var variable = regexp.MustCompile(`%\{([A-Z0-9_]*)\}%`)

// render reads the packaged files and fills in their variables.
func render(packaged fs.FS, values map[string]string) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := fs.WalkDir(packaged, ".", func(path string, item fs.DirEntry, err error) error {
		if err != nil || item.IsDir() || !isManifest(path) {
			return err
		}
		data, err := fs.ReadFile(packaged, path)
		if err != nil {
			return err
		}
		out[path], err = fill(data, values)
		if err != nil {
			return fmt.Errorf("packaged manifest %s: %w", path, err)
		}
		return nil
	})
	return out, err
}

// fill replaces %{NAME}% by its value. An unknown or empty variable is an error.
func fill(text []byte, values map[string]string) ([]byte, error) {
	var problem error
	filled := variable.ReplaceAllFunc(text, func(found []byte) []byte {
		name := string(found[2 : len(found)-2])
		if values[name] == "" {
			problem = errors.Join(problem, fmt.Errorf("variable %s has no value", name))
		}
		return []byte(values[name])
	})
	return filled, problem
}

// staging is what to do to the folder so that it holds the packaged files.
type staging struct {
	write  []string // files to write, those with other content
	remove []string // files of ours that must go
	list   []string // files that are ours afterwards
}

// planStaging decides. A .skip file keeps our hands off its file; a disabled add-on is removed; so is what an earlier version
// brought and this one does not.
func planStaging(rendered map[string][]byte, earlier []string, disabled disabledSet, skipped func(rel string) bool, current func(rel string) []byte) staging {
	var s staging
	for rel, data := range rendered {
		switch {
		case skipped(rel):
			s.list = append(s.list, rel)
		case disabled.has(rel):
			s.remove = append(s.remove, rel)
		default:
			s.list = append(s.list, rel)
			if !bytes.Equal(current(rel), data) {
				s.write = append(s.write, rel)
			}
		}
	}
	for _, rel := range earlier {
		if _, ours := rendered[rel]; !ours && !skipped(rel) {
			s.remove = append(s.remove, rel)
		}
	}
	slices.Sort(s.write)
	slices.Sort(s.remove)
	slices.Sort(s.list)
	return s
}

// stage writes the packaged files into the folder.
func stage(dir string, rendered map[string][]byte, disabled disabledSet) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var earlier []string
	if data, err := os.ReadFile(filepath.Join(dir, packagedList)); err == nil {
		_ = json.Unmarshal(data, &earlier) // a damaged list only forgets what an older version left
	}
	skipped := func(rel string) bool {
		_, err := os.Lstat(filepath.Join(dir, rel+".skip"))
		return err == nil
	}
	current := func(rel string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, rel))
		if err != nil {
			return nil
		}
		return data
	}
	plan := planStaging(rendered, earlier, disabled, skipped, current)
	// Every file is in the list from before it is written until after it is removed.
	if err := writeList(dir, append(slices.Clone(plan.list), plan.remove...), earlier); err != nil {
		return err
	}
	for _, rel := range plan.write {
		if err := replaceFile(filepath.Join(dir, rel), rendered[rel]); err != nil {
			return err
		}
	}
	for _, rel := range plan.remove {
		if err := os.Remove(filepath.Join(dir, rel)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return writeList(dir, plan.list, append(slices.Clone(plan.list), plan.remove...))
}

func writeList(dir string, list, before []string) error {
	slices.Sort(list)
	slices.Sort(before)
	if slices.Equal(list, before) {
		if _, err := os.Stat(filepath.Join(dir, packagedList)); err == nil {
			return nil
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, packagedList), append(data, '\n'))
}

// replaceFile changes a file in one step, also for a machine that loses power.
func replaceFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".kedge-tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(temp.Name(), path)
}

// disabledSet are the names given to --disable. A name covers the file NAME.yaml and the folder NAME.
type disabledSet map[string]bool

func newDisabledSet(names []string) (disabledSet, error) {
	set := disabledSet{}
	for _, name := range names {
		if name = strings.TrimSpace(name); name == recordsFile || name == stem(recordsFile) {
			return nil, fmt.Errorf("disable: %q keeps the records of all add-ons and cannot be disabled", name)
		}
		set[name] = true
	}
	return set, nil
}

func (d disabledSet) has(rel string) bool {
	first, _, _ := strings.Cut(rel, "/")
	return d[stem(rel)] || (first != rel && d[first])
}
