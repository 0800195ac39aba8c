package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

const (
	maxFileLines     = 400
	maxFunctionLines = 60
	maxPackageFiles  = 8
	maxMethods       = 5
)

// checkSizes wants every measure below its limit. Generated code is as large as it is.
func checkSizes(files []source) []violation {
	var vs []violation
	for _, f := range files {
		if f.generated {
			continue
		}
		if f.lines >= maxFileLines {
			vs = append(vs, violation{"file size", f.path, fmt.Sprintf("%d lines, want fewer than %d", f.lines, maxFileLines)})
		}
		ast.Inspect(f.tree, func(n ast.Node) bool {
			switch d := n.(type) {
			case *ast.FuncDecl:
				lines := f.set.Position(d.End()).Line - f.set.Position(d.Pos()).Line + 1
				if lines >= maxFunctionLines {
					vs = append(vs, violation{"function size", f.path + ":" + d.Name.Name,
						fmt.Sprintf("%d lines, want fewer than %d", lines, maxFunctionLines)})
				}
			case *ast.TypeSpec:
				i, ok := d.Type.(*ast.InterfaceType)
				if ok && i.Methods.NumFields() >= maxMethods {
					vs = append(vs, violation{"interface size", f.path + ":" + d.Name.Name,
						fmt.Sprintf("%d methods, want fewer than %d", i.Methods.NumFields(), maxMethods)})
				}
			}
			return true
		})
	}
	for dir, pkg := range packages(files) {
		n := len(slices.DeleteFunc(pkg, func(f source) bool { return f.test || f.generated }))
		if n >= maxPackageFiles {
			vs = append(vs, violation{"package size", dir, fmt.Sprintf("%d files, want fewer than %d", n, maxPackageFiles)})
		}
	}
	return vs
}

// checkComments wants exactly one package comment for each package, in the usual form.
func checkComments(files []source) []violation {
	var vs []violation
	for dir, pkg := range packages(files) {
		var comments []string
		for _, f := range pkg {
			if f.tree.Doc != nil && !f.generated {
				comments = append(comments, f.tree.Doc.Text())
			}
		}
		name := pkg[0].tree.Name.Name
		start := "Package " + strings.TrimSuffix(name, "_test") + " "
		if name == "main" {
			start = "Command " + path.Base(dir) + " "
		}
		switch {
		case len(comments) != 1:
			vs = append(vs, violation{"package comment", dir, fmt.Sprintf("%d package comments, want exactly one", len(comments))})
		case !strings.HasPrefix(strings.ReplaceAll(comments[0], "\n", " "), start):
			vs = append(vs, violation{"package comment", dir, fmt.Sprintf("does not begin with %q", start)})
		}
	}
	return vs
}

// checkState forbids init functions and package variables: what a program does is read from main down, and two parts in one
// process must not meet in a variable.
func checkState(files []source) []violation {
	var vs []violation
	for _, f := range files {
		for _, decl := range f.tree.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					vs = append(vs, violation{"init function", f.path, "say in New or Run what is to be done"})
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR && !f.test && !f.generated {
					vs = append(vs, variables(f, d)...)
				}
			}
		}
	}
	return vs
}

func variables(f source, d *ast.GenDecl) []violation {
	var vs []violation
	for _, spec := range d.Specs {
		v := spec.(*ast.ValueSpec) // go/ast: the specs of a var declaration
		for i, name := range v.Names {
			if name.Name == "_" || constant(v, i) || d.Doc != nil && embeds(d.Doc) {
				continue
			}
			vs = append(vs, violation{"package variable", f.path + ":" + name.Name,
				"make it a constant, a function that returns it, or a field"})
		}
	}
	return vs
}

// constant reports whether a variable is never assigned again by convention: an error value or a compiled pattern.
func constant(v *ast.ValueSpec, i int) bool {
	if i >= len(v.Values) {
		return false
	}
	call, ok := v.Values[i].(*ast.CallExpr)
	if !ok {
		return false
	}
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, _ := fun.X.(*ast.Ident)
	return pkg != nil && slices.Contains([]string{"errors.New", "regexp.MustCompile"}, pkg.Name+"."+fun.Sel.Name)
}

func embeds(doc *ast.CommentGroup) bool {
	return slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// checkNames forbids packages that are named after nothing in the domain.
func checkNames(files []source) []violation {
	var vs []violation
	for dir := range packages(files) {
		for element := range strings.SplitSeq(dir, "/") {
			if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base"}, element) {
				vs = append(vs, violation{"package name", dir, "name it after what it is about"})
			}
		}
	}
	return vs
}

// checkCalls forbids calls that belong elsewhere: ending the process outside main, and sleeping in a test for the time
// something is hoped to take. A loop that polls may sleep, and so may a test on the clock of testing/synctest.
func checkCalls(files []source) []violation {
	var vs []violation
	for _, f := range files {
		bubble := slices.Contains(f.imports(), "testing/synctest")
		var loops []ast.Node
		ast.Inspect(f.tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ForStmt:
				loops = append(loops, n)
			case *ast.SelectorExpr:
				pkg, _ := n.X.(*ast.Ident)
				if pkg == nil {
					return true
				}
				call := pkg.Name + "." + n.Sel.Name
				exits := call == "os.Exit" && !f.test || strings.HasPrefix(call, "log.Fatal")
				polls := slices.ContainsFunc(loops, func(l ast.Node) bool { return l.Pos() <= n.Pos() && n.End() <= l.End() })
				if exits && f.tree.Name.Name != "main" {
					vs = append(vs, violation{"exit", f.path, "return an error: only main exits"})
				}
				if call == "time.Sleep" && f.test && !bubble && !polls {
					vs = append(vs, violation{"sleep", f.path, "await what the test needs, or use testing/synctest"})
				}
			}
			return true
		})
	}
	return dedupe(vs)
}

// checkExported wants a comment on each exported function, type, and method of an exported type, and forbids functional
// options: settings are fields of a Config.
func checkExported(files []source) []violation {
	var vs []violation
	for _, f := range files {
		if f.test || f.generated || f.tree.Name.Name == "main" {
			continue
		}
		for _, decl := range f.tree.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					vs = append(vs, violation{"comment", f.path + ":" + d.Name.Name, "say in one line what it does"})
				}
				if d.Recv == nil && strings.HasPrefix(d.Name.Name, "With") && returnsOption(d) {
					vs = append(vs, violation{"option", f.path + ":" + d.Name.Name, "make it a field of the Config"})
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					t, ok := spec.(*ast.TypeSpec)
					if ok && t.Name.IsExported() && d.Doc == nil && t.Doc == nil {
						vs = append(vs, violation{"comment", f.path + ":" + t.Name.Name, "say in one line what it is"})
					}
				}
			}
		}
	}
	return vs
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	name, ok := t.(*ast.Ident)
	return ok && name.IsExported()
}

func returnsOption(d *ast.FuncDecl) bool {
	if d.Type.Results.NumFields() != 1 {
		return false
	}
	switch t := d.Type.Results.List[0].Type.(type) {
	case *ast.FuncType:
		return true
	case *ast.Ident:
		return strings.HasSuffix(t.Name, "Option")
	}
	return false
}

// unfinished matches marks of work that is not done, and places that exist on one machine only.
func unfinished() *regexp.Regexp {
	return regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b|/wo` + `rk/(main|shared)`)
}

func checkWords(files []source) []violation {
	var vs []violation
	for _, f := range files {
		for _, word := range unfinished().FindAllString(f.text, -1) {
			vs = append(vs, violation{"word", f.path, fmt.Sprintf("contains %q", word)})
		}
	}
	return dedupe(vs)
}
