package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func architecture(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section returns the text below a heading of the second level.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/architecture.md has no section %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	return rest
}

var firstColumn = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// rows returns the first columns of the tables in a text.
func rows(text string) (out []string) {
	for _, m := range firstColumn.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

// The map names every package, and none that is not there.
func TestArchitectureNamesThePackages(t *testing.T) {
	var packages []string
	goFiles(t, func(file string, _ []byte) {
		dir := path.Dir(file)
		if !isTest(file) && !under(dir, "cmd") && !under(dir, "examples") && !under(dir, "internal") && !slices.Contains(packages, dir) {
			packages = append(packages, dir)
		}
	})
	named := rows(section(t, architecture(t), "The parts"))
	for _, p := range packages {
		if !slices.Contains(named, p) && p != "crdtstore/internal/golden" {
			t.Errorf("docs/architecture.md does not say what %s knows", p)
		}
	}
	for _, p := range named {
		if !slices.Contains(packages, p) {
			t.Errorf("docs/architecture.md names %s, which is no package", p)
		}
	}
}

// Every lock says what it guards, and is on the list of locks.
func TestLocksAreListed(t *testing.T) {
	listed := rows(section(t, architecture(t), "Locks"))
	var locks []string
	goFiles(t, func(file string, src []byte) {
		dir := path.Dir(file)
		if isTest(file) || under(dir, "examples") || under(dir, "cmd/soak") || strings.HasSuffix(dir, "test") || dir == "crdtstore/internal/faultdisk" || dir == "crdtstore/internal/sim" {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			s, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range s.Fields.List {
				if !isLock(field.Type) {
					continue
				}
				says := field.Doc.Text() + field.Comment.Text()
				for _, name := range field.Names {
					lock := path.Base(dir) + "." + spec.Name.Name + "." + name.Name
					locks = append(locks, lock)
					if !strings.Contains(says, "guard") && !strings.Contains(says, "held") {
						t.Errorf("%s: %s does not say what it guards, or how long it is held", file, lock)
					}
				}
			}
			return true
		})
	})
	for _, lock := range locks {
		if !slices.Contains(listed, lock) {
			t.Errorf("docs/architecture.md does not list the lock %s", lock)
		}
	}
	for _, lock := range listed {
		if !slices.Contains(locks, lock) {
			t.Errorf("docs/architecture.md lists %s, which is no lock", lock)
		}
	}
}

// isLock reports whether a field is a mutex, or a channel that is used as one.
func isLock(of ast.Expr) bool {
	switch of := of.(type) {
	case *ast.StarExpr:
		return isLock(of.X)
	case *ast.SelectorExpr:
		return of.Sel.Name == "Mutex" || of.Sel.Name == "RWMutex"
	case *ast.Ident:
		return of.Name == "lock"
	}
	return false
}

func under(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }
