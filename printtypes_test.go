package sojourn_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// printsPlainly are the exported types that could hold a secret, by what their
// fields are, and hold none, so that they print like any struct. Every other one
// has its own Format and LogValue.
var printsPlainly = map[string]string{
	"adopt.Refusal":                      "a word",
	"legacy/engine/clouddatastore.Store": "names",
	"sojourn.Cookie":                     "attributes",
	"sojourn.Event":                      "what audit logs are for; a session is named by its handle",
	"sojourn.Flash":                      "a message that the application shows, like a value that it gets",
	"sojourn.Info":                       "what is shown to the user; no values",
	"keys.Info":                          "public ids of keys",
	"adopt.Stats":                        "counters by name",

	"store.EndPage":           "public handles and a cursor",
	"store.ID":                "no credential; it prints as the public handle",
	"store.UserHash":          "a keyed hash",
	"store/tiered.Layer":      "a name and limits; the cache prints for itself",
	"store/tiered.Health":     "a name and counters",
	"store/sqlite.Store":      "a path",
	"store/postgres.Options":  "a table's name; the password is in the URL, which no type keeps",
	"store/postgres.Store":    "statements",
	"store/memcached.Options": "a prefix", "store/memcached.Store": "a prefix", "store/memcached.Cache": "a prefix",
	"store/datastore/gae.Options": "names", "store/datastore/gae.Store": "names", "store/datastore/gae.CacheOptions": "names", "store/datastore/gae.Cache": "names",
	"store/datastore/cloud.Options": "names", "store/datastore/cloud.Store": "names",
	"store/open.Engine": "schemes and functions", "store/open.Address": "hosts and options of engines that know no password",

	"adapter/adaptertest.Request": "cookies of a test's own server", "adapter/adaptertest.Answer": "likewise", "adapter/adaptertest.Wiring": "reasons",
	"adapter/adaptertest.Ability": "a name", "adapter/adaptertest.Failure": "what a test says",

	"admin.DashboardOptions": "paths and texts", "admin.DevicesOptions": "paths and texts", "admin.DevicesTexts": "texts", "admin.Action": "what audit logs are for",

	"legacy.About":       "names",
	"legacy/value.Tuple": "a value that the application gets", "legacy/value.Set": "likewise", "legacy/value.Decimal": "likewise",
	"legacy/value.Object": "likewise", "legacy/value.Surrogates": "likewise", "legacy/value.Dict": "likewise", "legacy/value.Item": "likewise",
	"legacy/value.UUID": "likewise", "legacy/value.JSON": "a style", "legacy/pickle.Native": "a value that the application gets",
	"legacy/webapp2.Flash":      "a message that the application shows",
	"legacy/cookies.Attributes": "attributes", "legacy/reason.Reason": "a word",
	"legacy/gaeutilities.Config": "a cookie's name", "legacy/gaeutilities.UnsignedCookie": "a cookie's name",
	"legacy/memcachevars.Config": "names of variables", "legacy/scs.Config": "a cookie's name", "legacy/engine/sqldb.Beaker": "a table's name", "legacy/vectors.Backends": "an application's name",
	"legacy/engine/gae.Memcache": "a namespace", "legacy/engine/gae.Datastore": "a namespace", "legacy/engine/gae.Gaeutilities": "a namespace",
}

// completeAsJSON are the types that hold secrets in exported fields and are for
// writing them as JSON.
var completeAsJSON = map[string]string{
	"sojourn.Export": "what a user is given who asks what is kept about them",
	"store.Record":   "a store may keep records in that form; Data is sealed",
	"store.Volatile": "likewise",
	"sojourn.Config": "it has functions, which encoding/json refuses", "sojourn.Adopt": "likewise", "sojourn.WriteBack": "likewise",
	"legacy/vectors.File": "recorded sessions are JSON", "legacy/vectors.Case": "likewise", "legacy/vectors.Expectation": "likewise",
	"legacy/vectors.Entry": "likewise", "legacy/vectors.Property": "likewise", "legacy/vectors.Verdict": "likewise", "legacy/vectors.Written": "likewise",
}

// harmlessInside are types with printers that nobody can look into, and whose own
// fields hold no secret, apart from what is behind further pointers.
var harmlessInside = map[string]string{
	"sojourn.Manager":    "names and counters",
	"store/memory.Store": "indexes of records", "store/redis.Store": "a prefix",
	"store/tiered.Store": "counters", "store/tiered.Memory": "indexes of entries",
}

// harmless are types from elsewhere that hold no secret, and interfaces, whose
// values are types of their own.
var harmless = regexp.MustCompile(`^(time\.(Time|Duration|Location)|context\.(Context|CancelFunc)|sync(/atomic)?\.\w+|log/slog\.Logger|net/http\.(SameSite|ResponseWriter|Handler)|` +
	`testing\.TB|hash/maphash\.Seed|crypto/tls\.Config|io\.\w+|os\.Root|go\.opentelemetry\.io/.*|database/sql\.DB|` +
	`github\.com/(valkey-io/valkey-go|bradfitz/gomemcache/memcache)\.Client)$`)

// sourceTypes are the types that the packages of this repository declare, by
// import path and name.
type sourceTypes struct {
	decls map[string]*sourceType
}

type sourceType struct {
	pkg, name string
	expr      ast.Expr
	imports   map[string]string // of its file: name → path
	methods   map[string]bool   // → the receiver is a pointer
	public    bool
}

const module = "github.com/sojourn-go/sojourn"

// label is how the lists above name the type.
func (s *sourceType) label() string {
	dir := strings.TrimPrefix(strings.TrimPrefix(s.pkg, module), "/")
	if dir == "" {
		dir = "sojourn"
	}
	return dir + "." + s.name
}

func parseRepository(t *testing.T) *sourceTypes {
	t.Helper()
	types := &sourceTypes{decls: map[string]*sourceType{}}
	private := regexp.MustCompile(`(^|/)(internal|testdata|examples|cmd|bench|docs|scripts)(/|$)`)
	type method struct {
		pkg, receiver, name string
		pointer             bool
	}
	var methods []method
	set := token.NewFileSet()
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); name != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(file))
		pkg := path.Join(module, dir)
		imports := map[string]string{}
		for _, spec := range f.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			name := path.Base(to)
			if regexp.MustCompile(`^v\d+$`).MatchString(name) {
				name = path.Base(path.Dir(to))
			}
			name = strings.TrimSuffix(name, "-go")
			if spec.Name != nil {
				name = spec.Name.Name
			}
			imports[name] = to
		}
		for _, decl := range f.Decls {
			switch d := decl.(type) {
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if spec, ok := spec.(*ast.TypeSpec); ok {
						types.decls[pkg+"."+spec.Name.Name] = &sourceType{
							pkg: pkg, name: spec.Name.Name, expr: spec.Type, imports: imports, methods: map[string]bool{},
							public: spec.Name.IsExported() && !spec.Assign.IsValid() && !private.MatchString(dir) && f.Name.Name != "main",
						}
					}
				}
			case *ast.FuncDecl:
				if d.Recv == nil {
					continue
				}
				receiver := d.Recv.List[0].Type
				star, pointer := receiver.(*ast.StarExpr)
				if pointer {
					receiver = star.X
				}
				if index, ok := receiver.(*ast.IndexExpr); ok {
					receiver = index.X
				}
				if name, ok := receiver.(*ast.Ident); ok {
					methods = append(methods, method{pkg, name.Name, d.Name.Name, pointer})
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range methods {
		if decl := types.decls[m.pkg+"."+m.receiver]; decl != nil {
			decl.methods[m.name] = m.pointer
		}
	}
	return types
}

// A reach is how a printer gets at the fields of a value.
type reach struct {
	types *sourceTypes
	json  bool // encoding/json: exported fields only, through pointers
	seen  map[*sourceType]bool
}

// silent reports whether the type of a field keeps its secrets from the printer.
// encoding/json always asks the methods of a field. fmt does not: behind a pointer
// to the struct, with verbs such as %s. So the struct needs a printer, too.
func (r reach) silent(s *sourceType) bool {
	if r.json {
		_, text := s.methods["MarshalText"]
		_, json := s.methods["MarshalJSON"]
		return text || json || completeAsJSON[s.label()] != ""
	}
	return printsPlainly[s.label()] != ""
}

// secret reports whether a value of that type could show a secret: a text, bytes,
// or what cannot be known. called says that methods of the value are asked, which
// fmt does not do below an unexported field.
func (r reach) secret(in *sourceType, e ast.Expr, called bool) bool {
	switch e := e.(type) {
	case *ast.Ident:
		switch e.Name {
		case "string", "any":
			return true
		case "bool", "error", "int", "int8", "int16", "int32", "int64", "uint", "uint8", "uint16", "uint32", "uint64", "uintptr", "float32", "float64", "complex128", "byte", "rune":
			return false
		}
		return r.named(in.pkg+"."+e.Name, called)
	case *ast.SelectorExpr:
		return r.named(in.imports[e.X.(*ast.Ident).Name]+"."+e.Sel.Name, called)
	case *ast.StarExpr:
		if !r.json && !called {
			return false // an address
		}
		return r.secret(in, e.X, called)
	case *ast.ArrayType:
		if elem, ok := e.Elt.(*ast.Ident); ok && elem.Name == "byte" {
			return true
		}
		return r.secret(in, e.Elt, called)
	case *ast.MapType:
		return r.secret(in, e.Key, called) || r.secret(in, e.Value, called)
	case *ast.StructType:
		for _, field := range e.Fields.List {
			names := field.Names
			exported := slices.ContainsFunc(names, (*ast.Ident).IsExported)
			if len(names) == 0 { // embedded
				name := strings.TrimPrefix(typeName(field.Type), "*")
				exported = ast.IsExported(name[strings.LastIndexByte(name, '.')+1:])
			}
			if (exported || !r.json) && r.secret(in, field.Type, called && exported) {
				return true
			}
		}
		return false
	case *ast.IndexExpr:
		return r.secret(in, e.X, called)
	case *ast.ParenExpr:
		return r.secret(in, e.X, called)
	case *ast.InterfaceType:
		return e.Methods.NumFields() == 0
	case *ast.FuncType, *ast.ChanType:
		return false
	}
	return true
}

func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.StarExpr:
		return "*" + typeName(e.X)
	case *ast.SelectorExpr:
		return typeName(e.X) + "." + e.Sel.Name
	case *ast.IndexExpr:
		return typeName(e.X)
	}
	return "?"
}

func (r reach) named(name string, called bool) bool {
	s := r.types.decls[name]
	if s == nil {
		return !harmless.MatchString(name)
	}
	if r.silent(s) || r.seen[s] {
		return false
	}
	r.seen[s] = true
	defer delete(r.seen, s)
	return r.secret(s, s.expr, called)
}

// opaque reports whether nobody outside of its package can look into the type.
func (s *sourceType) opaque() bool {
	fields, ok := s.expr.(*ast.StructType)
	return ok && !slices.ContainsFunc(fields.Fields.List, func(f *ast.Field) bool {
		return slices.ContainsFunc(f.Names, (*ast.Ident).IsExported) || len(f.Names) == 0 && ast.IsExported(strings.TrimPrefix(typeName(f.Type), "*"))
	})
}

// locked reports whether a type must not be copied, so that its values are used
// by pointer only.
func (s *sourceType) locked() bool {
	fields, ok := s.expr.(*ast.StructType)
	return ok && slices.ContainsFunc(fields.Fields.List, func(f *ast.Field) bool {
		name := typeName(f.Type)
		return strings.HasPrefix(name, "sync.") || strings.HasPrefix(name, "atomic.")
	})
}

// Somebody adds an exported type, or a field to one: if it can hold a secret, it
// prints without it, or is listed above with the reason why that is none.
func TestEveryExportedTypeThatCanHoldASecretPrintsWithoutIt(t *testing.T) {
	if _, err := os.Stat("go.work"); err != nil {
		t.Fatal(err)
	}
	types := parseRepository(t)
	needed := map[string]bool{}
	found := 0
	for _, s := range types.decls {
		if _, isInterface := s.expr.(*ast.InterfaceType); isInterface || !s.public {
			continue
		}
		found++
		// In an unexported field of an application's struct no method is asked, and
		// verbs such as %s print what a pointer there leads to.
		if raw := (reach{types: types, seen: map[*sourceType]bool{s: true}}); s.opaque() && raw.secret(s, s.expr, false) &&
			printsPlainly[s.label()] == "" && harmlessInside[s.label()] == "" {
			t.Errorf("%s can show a secret in an unexported field: keep it behind one more pointer, or list it in harmlessInside with the reason why it holds none itself", s.label())
		}
		byJSON := reach{types: types, json: true, seen: map[*sourceType]bool{s: true}}
		byFmt := reach{types: types, seen: map[*sourceType]bool{s: true}}
		pointer, formats := s.methods["Format"]
		_, logs := s.methods["LogValue"]
		_, text := s.methods["MarshalText"]
		_, json := s.methods["MarshalJSON"]
		// A printer may also be there because a type's fields must not be read
		// without a lock.
		shows := byFmt.secret(s, s.expr, true)
		switch {
		case !formats && !logs:
			needed[s.label()] = shows
			if shows && printsPlainly[s.label()] == "" {
				t.Errorf("%s can hold a secret: give it Format and LogValue (and MarshalText if an exported field holds it), or list it in printsPlainly with the reason why it holds none", s.label())
			}
			continue
		case !formats || !logs:
			t.Errorf("%s has one of Format and LogValue, and needs both", s.label())
		case pointer && !s.locked() && !onlyByPointer[s.label()]:
			t.Errorf("%s: Format has a pointer receiver, so a copy of a value prints its secrets", s.label())
		}
		if byJSON.secret(s, s.expr, true) && !text && !json && completeAsJSON[s.label()] == "" {
			t.Errorf("%s has exported fields that can hold a secret: give it MarshalText, or list it in completeAsJSON", s.label())
		}
	}
	if found < 80 {
		t.Errorf("%d exported types were found: the search is broken", found)
	}
	for label := range printsPlainly {
		if !needed[label] {
			t.Errorf("%s is listed in printsPlainly, and need not be", label)
		}
	}
}

// onlyByPointer are types that are made by a constructor, which returns a pointer,
// and whose fields cannot be printed through a copy but in their own package.
var onlyByPointer = map[string]bool{"sojourn.Session": true, "sojourn.Manager": true, "store/redis.Store": true, "legacy/share.Session": true}
