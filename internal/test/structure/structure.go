// Package structure measures the structure of a package: the sizes of its files
// and functions, and the largest set of declarations each of which depends on
// every other one. Its test limits that set for the public package.
package structure

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Declaration is a top-level declaration: a function, a method, or one
// specification of a type, a variable or a constant.
type Declaration struct {
	Name     string // methods with their receiver: "Session.Get"
	Receiver string // of a method; "" otherwise
	File     string // base name
	Lines    int    // without its comment
	Function bool
	uses     []*Declaration
}

// Package has the measurements of a package.
type Package struct {
	Files        map[string]int // lines, by base name
	Declarations []*Declaration
}

// listed is the output of "go list -json" for a package.
type listed struct {
	Dir, ImportPath, Export string
	GoFiles                 []string
	DepOnly                 bool
}

// Load measures the package of that path, without its tests. It needs the go
// command, and compiles what the package imports.
func Load(path string) (*Package, error) {
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=Dir,ImportPath,Export,GoFiles,DepOnly", path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exports := map[string]string{}
	var root listed
	for decoder := json.NewDecoder(out); ; {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("what go list says: %w", err)
		}
		exports[p.ImportPath] = p.Export
		if !p.DepOnly {
			root = p
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("go list %s: %w", path, err)
	}
	return measure(&root, exports)
}

func measure(root *listed, exports map[string]string) (*Package, error) {
	p := &Package{Files: map[string]int{}}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range root.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(root.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
		p.Files[name] = fset.File(f.FileStart).LineCount()
	}
	info := &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})}
	if _, err := config.Check(root.ImportPath, fset, files, info); err != nil {
		return nil, err
	}
	p.declare(fset, files, info)
	return p, nil
}

// declare finds the declarations and their uses.
func (p *Package) declare(fset *token.FileSet, files []*ast.File, info *types.Info) {
	of := map[types.Object]*Declaration{}
	nodes := map[*Declaration]ast.Node{}
	add := func(n ast.Node, d *Declaration, names ...*ast.Ident) {
		from, to := fset.Position(n.Pos()), fset.Position(n.End())
		d.File, d.Lines = filepath.Base(from.Filename), to.Line-from.Line+1
		p.Declarations = append(p.Declarations, d)
		nodes[d] = n
		for _, name := range names {
			if o := info.Defs[name]; o != nil {
				of[o] = d
			}
		}
	}
	for _, f := range files {
		for _, decl := range f.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				d := &Declaration{Name: decl.Name.Name, Function: true}
				if decl.Recv != nil {
					d.Receiver = receiver(decl.Recv.List[0].Type)
					d.Name = d.Receiver + "." + d.Name
				}
				add(decl, d, decl.Name)
				nodes[d] = &ast.FuncDecl{Recv: decl.Recv, Name: decl.Name, Type: decl.Type, Body: decl.Body}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						add(spec, &Declaration{Name: spec.Name.Name}, spec.Name)
					case *ast.ValueSpec:
						add(spec, &Declaration{Name: spec.Names[0].Name}, spec.Names...)
					}
				}
			}
		}
	}
	// A use of a type counts as a use of its methods.
	for _, d := range p.Declarations {
		if d.Receiver == "" {
			continue
		}
		for _, t := range p.Declarations {
			if t.Name == d.Receiver && !t.Function {
				t.uses = append(t.uses, d)
			}
		}
	}
	for d, n := range nodes {
		seen := map[*Declaration]bool{}
		ast.Inspect(n, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			used := info.Uses[id]
			if f, ok := used.(*types.Func); ok {
				used = f.Origin()
			}
			if to := of[used]; to != nil && to != d && !seen[to] {
				seen[to] = true
				d.uses = append(d.uses, to)
			}
			return true
		})
	}
}

// receiver is the name of a method's receiver type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	default:
		return "?"
	}
}

// Knot returns the largest strongly connected set of declarations, in lines: each
// needs every other one, directly or through others.
func (p *Package) Knot() (knot []*Declaration, lines int) {
	// Tarjan's algorithm (SIAM J. Comput. 1, 1972).
	index, low, onStack := map[*Declaration]int{}, map[*Declaration]int{}, map[*Declaration]bool{}
	var stack []*Declaration
	var visit func(d *Declaration)
	visit = func(d *Declaration) {
		index[d] = len(index) + 1
		low[d] = index[d]
		stack, onStack[d] = append(stack, d), true
		for _, to := range d.uses {
			if index[to] == 0 {
				visit(to)
				low[d] = min(low[d], low[to])
			} else if onStack[to] {
				low[d] = min(low[d], index[to])
			}
		}
		if low[d] != index[d] {
			return
		}
		start := slices.Index(stack, d)
		set := slices.Clone(stack[start:])
		stack = stack[:start]
		sum := 0
		for _, member := range set {
			onStack[member] = false
			sum += member.Lines
		}
		if sum > lines {
			knot, lines = set, sum
		}
	}
	for _, d := range p.Declarations {
		if index[d] == 0 {
			visit(d)
		}
	}
	return knot, lines
}

// MethodFiles returns the files that methods of a type are in.
func (p *Package) MethodFiles(receiver string) []string {
	var files []string
	for _, d := range p.Declarations {
		if d.Receiver == receiver && !slices.Contains(files, d.File) {
			files = append(files, d.File)
		}
	}
	slices.Sort(files)
	return files
}
