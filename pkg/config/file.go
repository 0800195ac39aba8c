package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// readFiles returns the settings of the config file and its drop-ins.
func (src Sources) readFiles(settings []Setting) (map[string]given, error) {
	merged := map[string]given{}
	file, explicit := src.configFile()
	err := readFile(file, settings, merged)
	if err != nil && (explicit != "" || !errors.Is(err, fs.ErrNotExist)) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("config file %s, named by %s, does not exist", file, explicit)
		}
		return nil, err
	}
	entries, err := os.ReadDir(file + ".d") // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read config drop-ins: %w", err)
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); e.IsDir() || ext != ".yaml" && ext != ".yml" {
			continue
		}
		if err := readFile(filepath.Join(file+".d", e.Name()), settings, merged); err != nil {
			return nil, err
		}
	}
	return merged, nil
}

// configFile returns the path and what named it; the latter is empty for the default.
func (src Sources) configFile() (path, namedBy string) {
	if src.File != "" {
		return src.File, "--config"
	}
	for _, name := range ConfigEnv() {
		if v, _ := src.LookupEnv(name); v != "" {
			return v, name
		}
	}
	return src.DefaultFile, ""
}

func readFile(path string, settings []Setting, merged map[string]given) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read config file: %w", err)
	}
	return parseFile(path, data, settings, merged)
}

// parseFile adds the keys of one file to merged: a key replaces what earlier files said, key+ appends to it.
func parseFile(path string, data []byte, settings []Setting, merged map[string]given) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("config file %s: %w", path, err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return nil // empty, or comments only
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("config file %s:%d: want lines of the form key: value", path, root.Line)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key := root.Content[i]
		where := fmt.Sprintf("%s:%d: %s", path, key.Line, key.Value)
		if seen[key.Value] {
			return fmt.Errorf("%s: the key is there twice", where)
		}
		seen[key.Value] = true
		s, err := findSetting(strings.TrimSuffix(key.Value, "+"), settings)
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		values, err := scalars(root.Content[i+1])
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", where, err)
		case !s.Repeat && (len(values) != 1 || key.Value != s.Name):
			return fmt.Errorf("%s: it takes one value, not a list", where)
		case key.Value != s.Name:
			values = append(slices.Clone(merged[s.Name].values), values...)
		}
		merged[s.Name] = given{values, where}
	}
	return nil
}

func findSetting(name string, settings []Setting) (Setting, error) {
	names := make([]string, len(settings))
	for i, s := range settings {
		if s.Name == name {
			return s, nil
		}
		names[i] = s.Name
	}
	if near := Nearest(name, names); near != "" {
		return Setting{}, fmt.Errorf("unknown key, did you mean %s?", near)
	}
	return Setting{}, errors.New("unknown key: keys are the flags of kedge without the dashes, see --help")
}

// scalars returns a value, or the values of a list, as they are written in the file: 0644 stays 0644.
func scalars(n *yaml.Node) ([]string, error) {
	switch {
	case n.Kind == yaml.AliasNode:
		return scalars(n.Alias)
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, errors.New("it has no value: give one or remove the line")
	case n.Kind == yaml.ScalarNode:
		return []string{n.Value}, nil
	case n.Kind != yaml.SequenceNode:
		return nil, errors.New("want a value or a list of values")
	}
	values := []string{}
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			return nil, fmt.Errorf("line %d: each item of the list must be one value", item.Line)
		}
		values = append(values, item.Value)
	}
	return values, nil
}
