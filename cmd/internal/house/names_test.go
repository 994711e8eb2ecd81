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

var (
	// codeSpan is what stands in backticks.
	codeSpan = regexp.MustCompile("`([^`\n]+)`")
	// goFile is the name of a Go file, with as many of its directories as are given.
	goFile = regexp.MustCompile(`[\w./-]*\w\.go\b`)
	// otherFile is the name of a file that is not Go.
	otherFile = regexp.MustCompile(`\.(?:js|json|md|proto|yaml)$`)
	// selector is pkg.Name, pkg.Type.Member or Type.Member, perhaps called.
	selector = regexp.MustCompile(`^(\w+)\.(\w+)(?:\.(\w+))?(?:\(.*\))?$`)
)

// declarations are the names that Go code declares: of a package as pkg.Name, and of a type
// as pkg.Type.Member and as Type.Member.
type declarations struct {
	files    []string
	packages map[string]bool
	types    map[string]bool
	names    map[string]bool
}

func (d *declarations) member(pkg, of, name string) {
	d.names[of+"."+name], d.names[pkg+"."+of+"."+name] = true, true
}

// add takes over what a file declares.
func (d *declarations) add(f *ast.File) {
	pkg := f.Name.Name
	d.packages[pkg] = true
	for _, decl := range f.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv == nil {
				d.names[pkg+"."+decl.Name.Name] = true
				continue
			}
			of := decl.Recv.List[0].Type
			if star, ok := of.(*ast.StarExpr); ok {
				of = star.X
			}
			if of, ok := of.(*ast.Ident); ok {
				d.member(pkg, of.Name, decl.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						d.names[pkg+"."+name.Name] = true
					}
				case *ast.TypeSpec:
					d.names[pkg+"."+spec.Name.Name], d.types[spec.Name.Name] = true, true
					d.members(pkg, spec)
				}
			}
		}
	}
}

func (d *declarations) members(pkg string, spec *ast.TypeSpec) {
	var list *ast.FieldList
	switch of := spec.Type.(type) {
	case *ast.StructType:
		list = of.Fields
	case *ast.InterfaceType:
		list = of.Methods
	default:
		return
	}
	for _, field := range list.List {
		for _, name := range field.Names {
			d.member(pkg, spec.Name.Name, name.Name)
		}
	}
}

// unknown returns why a name that stands in a document leads nowhere; empty: it does not.
func (d *declarations) unknown(span string) string {
	for _, name := range goFile.FindAllString(span, -1) {
		if !slices.ContainsFunc(d.files, func(file string) bool { return strings.HasSuffix("/"+file, "/"+name) }) {
			return "no file " + name
		}
	}
	m := selector.FindStringSubmatch(span)
	if m == nil || goFile.MatchString(span) || otherFile.MatchString(span) {
		return ""
	}
	name := strings.Join(slices.DeleteFunc(m[1:], func(s string) bool { return s == "" }), ".")
	exported := token.IsExported(m[1]) || token.IsExported(m[2])
	switch isType := d.types[m[1]]; {
	case !d.packages[m[1]] && !isType && !token.IsExported(m[1]), !exported && !isType:
		return "" // of another module, or no Go
	case d.names[name]:
		return ""
	}
	return "nothing is declared as " + name
}

// What the documents on the architecture name in backticks is there: files by a part of
// their path, and what code declares, as pkg.Name or Type.Member.
func TestDocumentsNameWhatIsThere(t *testing.T) {
	d := &declarations{packages: map[string]bool{}, types: map[string]bool{}, names: map[string]bool{}}
	goFiles(t, func(file string, src []byte) {
		d.files = append(d.files, file)
		f, err := parser.ParseFile(token.NewFileSet(), file, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !isTest(file) {
			d.add(f)
		}
	})
	for span, wrong := range map[string]bool{
		"record/state.go": false, "record/gone.go": true, "cord/state.go": true,
		"record.Join": false, "record.Gone": true, "Store.Beat": false, "Store.Gone": true, "Gone.Beat": true,
		"record.Liveness(observers, now)": false, "record.Claim.RemovedBelow": false,
		"pins.json": false, "http.Handler": false, "gateway.operation": false, "gateway.gone": true,
	} {
		if why := d.unknown(span); (why != "") != wrong {
			t.Errorf("of %s it is found: %q", span, why)
		}
	}
	documents, err := filepath.Glob(filepath.Join(root, "docs", "design", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatal(documents, err)
	}
	for _, document := range append(documents, filepath.Join(root, "docs", "architecture.md")) {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range codeSpan.FindAllStringSubmatch(string(text), -1) {
			if why := d.unknown(m[1]); why != "" {
				t.Errorf("%s: `%s`: %s", path.Base(filepath.ToSlash(document)), m[1], why)
			}
		}
	}
}
