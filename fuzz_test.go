package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestFuzzTargetsHaveSeeds wants seed inputs in the repository for every fuzz
// target, and none in a file that scripts/fuzz does not build.
func TestFuzzTargetsHaveSeeds(t *testing.T) {
	targets := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "build" || d.Name() == "testdata" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			target, ok := decl.(*ast.FuncDecl)
			if !ok || target.Recv != nil || !strings.HasPrefix(target.Name.Name, "Fuzz") {
				continue
			}
			targets++
			if !addsSeeds(target) {
				t.Errorf("%s: %s adds no seed inputs", path, target.Name.Name)
			}
			if strings.HasSuffix(path, "_lab_test.go") {
				t.Errorf("%s: scripts/fuzz does not see %s", path, target.Name.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if targets == 0 {
		t.Error("no fuzz target found")
	}
}

// addsSeeds tells whether the target calls f.Add.
func addsSeeds(target *ast.FuncDecl) bool {
	found := false
	ast.Inspect(target, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		found = found || ok && s.Sel.Name == "Add"
		return true
	})
	return found
}
