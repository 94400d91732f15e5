package policy

import (
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
)

// asksForProcess is whether an expression looks at more of the workload than its name and cgroup: at the process, which is not
// always known. Whatever is neither of the two counts, so that no way of writing it is missed.
func asksForProcess(compiled *cel.Ast) bool {
	isWorkload := func(e ast.NavigableExpr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == "workload" }
	for _, use := range ast.MatchDescendants(ast.NavigateAST(compiled.NativeRep()), isWorkload) {
		parent, ok := use.Parent()
		if !ok || parent.Kind() != ast.SelectKind {
			return true
		}
		if field := parent.AsSelect().FieldName(); field != "name" && field != "cgroup" {
			return true
		}
	}
	return false
}
