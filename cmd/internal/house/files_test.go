package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the top of the repository.
var root = filepath.Join("..", "..", "..")

// maxLines is how long a file may be that is not a test. Longer ones hold more
// than one thing.
const maxLines = 500

// longFiles may be longer, each for a reason.
var longFiles = map[string]string{}

// goFiles calls f with every Go file of the module and its path from the root.
func goFiles(t *testing.T, f func(path string, src []byte)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := strings.HasPrefix(d.Name(), ".") && rel != "."
			if _, err := os.Stat(filepath.Join(path, "go.mod")); rel != "." && err == nil || hidden || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		src, err := os.ReadFile(path)
		if err == nil {
			f(filepath.ToSlash(rel), src)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func isTest(path string) bool { return strings.HasSuffix(path, "_test.go") }

// Every package says in its doc.go what it is.
func TestPackageComments(t *testing.T) {
	described := map[string]bool{}
	goFiles(t, func(path string, src []byte) {
		dir := filepath.Dir(path)
		if !isTest(path) {
			described[dir] = described[dir] || false
		}
		if filepath.Base(path) != "doc.go" {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Error(err)
			return
		}
		begin := "Package " + file.Name.Name + " "
		if file.Name.Name == "main" {
			begin = "Command " + filepath.Base(dir) + " "
		}
		if !strings.HasPrefix(file.Doc.Text(), begin) {
			t.Errorf("%s: the package comment has to begin with %q", path, begin)
		}
		described[dir] = true
	})
	for dir, ok := range described {
		if !ok {
			t.Errorf("%s has no doc.go that says what the package is", dir)
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	goFiles(t, func(path string, src []byte) {
		if n := bytes.Count(src, []byte("\n")); n > maxLines && !isTest(path) && !generated(src) && longFiles[path] == "" {
			t.Errorf("%s has %d lines, more than %d; it holds more than one thing", path, n, maxLines)
		}
	})
}

var generatedComment = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func generated(src []byte) bool { return generatedComment.Match(src) }

// Whatever a package exports is documented, one by one or as a group.
func TestExportedIsDocumented(t *testing.T) {
	goFiles(t, func(path string, src []byte) {
		if isTest(path) || generated(src) {
			return
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		if file.Name.Name == "main" {
			return
		}
		missing := func(name *ast.Ident) {
			if name.IsExported() {
				t.Errorf("%s: %s has no comment", fset.Position(name.Pos()), name.Name)
			}
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Doc == nil && exportedReceiver(decl) && !obvious[decl.Name.Name] {
					missing(decl.Name)
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						if decl.Doc == nil && spec.Doc == nil && spec.Comment == nil {
							missing(spec.Name)
						}
					case *ast.ValueSpec:
						for _, name := range spec.Names {
							if decl.Doc == nil && spec.Doc == nil && spec.Comment == nil {
								missing(name)
							}
						}
					}
				}
			}
		}
	})
}

// obvious are methods of interfaces that everybody knows.
var obvious = map[string]bool{
	"Error": true, "Unwrap": true, "String": true, "Is": true, "Write": true, "Read": true, "Close": true,
	"Len": true, "Less": true, "Swap": true,
}

// exportedReceiver reports whether a function is one, or a method of an
// exported type.
func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return true
	}
	t := f.Recv.List[0].Type
	for {
		switch of := t.(type) {
		case *ast.StarExpr:
			t = of.X
		case *ast.IndexExpr:
			t = of.X
		case *ast.IndexListExpr:
			t = of.X
		case *ast.Ident:
			return of.IsExported()
		default:
			return false
		}
	}
}

// The library does nothing on its own: what it is to read and to whom it is to
// speak, it is told.
func TestLibraryKeepsToItself(t *testing.T) {
	banned := map[string]string{
		"os.Getenv": "the environment", "os.LookupEnv": "the environment", "os.Environ": "the environment",
		"os.Exit": "the process's end", "os.Args": "flags", "os.Stdout": "output", "os.Stderr": "output",
		"fmt.Print": "output", "fmt.Printf": "output", "fmt.Println": "output",
		"slog.Default": "a global logger", "slog.SetDefault": "a global logger",
		"signal.Notify": "signals", "signal.NotifyContext": "signals",
	}
	libraries := []string{"crdtstore/", "explorer/", "workeragent/"}
	goFiles(t, func(path string, src []byte) {
		if isTest(path) || !slices.ContainsFunc(libraries, func(l string) bool { return strings.HasPrefix(path, l) }) {
			return
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, src, 0)
		if err != nil {
			t.Error(err)
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			name := pkg.Name + "." + sel.Sel.Name
			if what := banned[name]; what != "" {
				t.Errorf("%s: %s: %s is for commands, a library is told", fset.Position(n.Pos()), name, what)
			}
			return true
		})
	})
}
