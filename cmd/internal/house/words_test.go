package house

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strings"
	"testing"
)

// glossary has the words that no identifier contains, each with the one that the field
// uses for it.
var glossary = map[string]string{
	"acquaintance": "member",
	"chronicle":    "event log",
	"deaf":         "partially connected",
	"dispute":      "identity conflict",
	"door":         "gateway",
	"ears":         "connectivity",
	"ebb":          "refill, of a token bucket",
	"flood":        "token bucket, burst, or broadcast",
	"hearsay":      "introduced",
	"heir":         "responsible (rendezvous hashing)",
	"inlet":        "ingress",
	"mend":         "recover",
	"newcome":      "full-state window",
	"occurrence":   "event",
	"patience":     "a timeout, named for what it bounds",
	"rival":        "identity conflict",
	"roused":       "woken",
	"seat":         "slot",
	"sketch":       "request envelope",
	"spoil":        "poison",
	"told":         "published, logged or refused, as the case is",
	"vouch":        "introduce",
	"welcome":      "full-state window",
	"witness":      "observer",
}

// whole has the identifiers that are fine as a part of one and say nothing alone.
var whole = map[string]string{
	"gate":    "fail-stop file system",
	"goes":    "start",
	"hears":   "observe, or connected",
	"say":     "set, log or print",
	"settle":  "a delay, named for what it waits for",
	"stands":  "prevails",
	"tell":    "publish, notify or print",
	"turn":    "transaction",
	"matter":  "rate-limit key",
	"meeting": "merge report",
	"comes":   "arrives",
}

// part is a word of an identifier.
var part = regexp.MustCompile(`[A-Z]+(?:[a-z]+|\b)|[A-Z]?[a-z]+`)

// Identifiers are in the words of the field; so is what a comment on them begins with.
func TestGlossary(t *testing.T) {
	goFiles(t, func(path string, src []byte) {
		if isTest(path) || generated(src) { // the names of tests are sentences
			return
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		declared(file, func(id *ast.Ident) {
			if use := whole[id.Name]; use != "" {
				t.Errorf("%s: %s says nothing alone; the field says: %s", fset.Position(id.Pos()), id.Name, use)
			}
			for _, word := range part.FindAllString(id.Name, -1) {
				word = strings.ToLower(word)
				use := cmp.Or(glossary[word], glossary[strings.TrimSuffix(word, "s")], glossary[strings.TrimSuffix(word, "es")])
				if use != "" {
					t.Errorf("%s: %s contains %q; the field says: %s", fset.Position(id.Pos()), id.Name, word, use)
				}
			}
		})
	})
}

// declared calls f for each identifier that a file declares.
func declared(file *ast.File, f func(*ast.Ident)) {
	list := func(exprs []ast.Expr) {
		for _, e := range exprs {
			if id, ok := e.(*ast.Ident); ok {
				f(id)
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			f(n.Name)
		case *ast.TypeSpec:
			f(n.Name)
		case *ast.ValueSpec:
			for _, id := range n.Names {
				f(id)
			}
		case *ast.Field:
			for _, id := range n.Names {
				f(id)
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				list(n.Lhs)
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				list([]ast.Expr{n.Key, n.Value})
			}
		}
		return true
	})
}

// firstWord is what a comment begins with, where that looks like an identifier of ours;
// subject is what one on something exported begins with.
var (
	firstWord = regexp.MustCompile(`^([a-z]\w*) `)
	subject   = regexp.MustCompile(`^(?:An? |The )?(\w+)`)
)

// A comment on something that begins with a name begins with its name: one that was left
// behind by a change of the name misleads.
func TestCommentsNameTheirSubject(t *testing.T) {
	goFiles(t, func(path string, src []byte) {
		if generated(src) {
			return
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		check := func(doc *ast.CommentGroup, names ...*ast.Ident) {
			m := firstWord.FindStringSubmatch(doc.Text())
			if m == nil && len(names) == 1 && names[0].IsExported() && !isTest(path) && doc.Text() != "" {
				m = subject.FindStringSubmatch(doc.Text())
			}
			if m == nil {
				return
			}
			for _, id := range names {
				if id.Name == m[1] {
					return
				}
			}
			t.Errorf("%s: the comment on %s begins with %q", fset.Position(names[0].Pos()), names[0].Name, m[1])
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if !isTest(path) || !ast.IsExported(decl.Name.Name) { // that of a test is a sentence
					check(decl.Doc, decl.Name)
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						check(spec.Doc, spec.Name)
						if len(decl.Specs) == 1 {
							check(decl.Doc, spec.Name)
						}
					case *ast.ValueSpec:
						check(spec.Doc, spec.Names...)
						if len(decl.Specs) == 1 {
							check(decl.Doc, spec.Names...)
						}
					}
				}
			}
		}
	})
}
