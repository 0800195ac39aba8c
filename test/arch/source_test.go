// Package arch holds the house rules as tests: who may import whom, how large things may be, what every package must say
// about itself. It reads the source with go/parser; running a tool instead would be answered from Go's test cache.
// Nobody imports it.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the path of this module in import statements.
const module = "github.com/kedge-io/kedge/"

// source is one parsed Go file.
type source struct {
	path      string // from the root of the repository, with slashes
	text      string
	tree      *ast.File
	set       *token.FileSet
	lines     int
	test      bool // a _test.go file
	generated bool
}

// dir is the package the file belongs to.
func (s source) dir() string { return path.Dir(s.path) }

func (s source) imports() []string {
	var paths []string
	for _, i := range s.tree.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			p = i.Path.Value // the parser has accepted it
		}
		paths = append(paths, p)
	}
	return paths
}

// parse reads one file; src is its text.
func parse(name, src string) (source, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, err
	}
	return source{
		path: name, text: src, tree: tree, set: set,
		lines:     strings.Count(src, "\n"),
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(tree),
	}, nil
}

// repository parses every Go file below root. A file that cannot be read or parsed is an error, not skipped.
func repository(root string) ([]source, error) {
	var files []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			// Hidden directories, test data, and what the build makes, are no source.
			skip := strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata" ||
				slices.Contains([]string{"bin", "build", "dist"}, rel)
			if skip {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parse(filepath.ToSlash(rel), string(data))
		if err != nil {
			return fmt.Errorf("parse %s: %w", rel, err)
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

// violation is one breach of a rule. Rule and where identify it in the list of exceptions.
type violation struct{ rule, where, what string }

func (v violation) key() string { return v.rule + " " + v.where }

// packages groups files by directory.
func packages(files []source) map[string][]source {
	byDir := map[string][]source{}
	for _, f := range files {
		byDir[f.dir()] = append(byDir[f.dir()], f)
	}
	return byDir
}

// load parses the repository this test lies in.
func load(t *testing.T) []source {
	t.Helper()
	files, err := repository("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("only %d files found: the test looks in the wrong place", len(files))
	}
	return files
}

// sources parses small files written in a test, given as name and text in turn.
func sources(t *testing.T, namesAndTexts ...string) []source {
	t.Helper()
	var files []source
	for i := 0; i < len(namesAndTexts); i += 2 {
		f, err := parse(namesAndTexts[i], namesAndTexts[i+1])
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}
