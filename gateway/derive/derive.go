// Package derive works out derived tags: expressions over the readings of tags of the same device, in the language of
// github.com/expr-lang/expr with numbers, texts, comparisons, ?: and the functions abs, ceil, floor, round, min, max, int,
// float and string.
//
// It promises that a formula ends, that it takes bounded memory, and that what it cannot work out is a bad reading with a
// reason, never a wrong value.
package derive

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"millrace/drivers/telemetry"
)

// Formula is one expression, ready to be worked out. It is not safe for concurrent use.
type Formula struct {
	inputs  []string
	program *vm.Program
	machine vm.VM
	env     map[string]any
}

// Help says in a line how a formula is written.
const Help = `write a formula such as "current * voltage": + - * / % ** and or not ?: < == and abs ceil floor round min max int float string; a tag T 1 is $env["T 1"]`

// functions are those of the language that make sense of single values.
var functions = []string{"abs", "ceil", "floor", "round", "min", "max", "int", "float", "string"}

// UnknownTagError says which tag a formula names that its device has not.
type UnknownTagError struct{ Name string }

// Error names the tag.
func (e *UnknownTagError) Error() string { return fmt.Sprintf("no tag %q", e.Name) }

// Compile parses an expression of at most 10,000 nodes. A tag is named by its name, or by $env["its name"] where that is no
// plain word. known reports whether the device has a tag; texts are those whose values are texts, as far as that is known. An error
// says in words what is wrong, or is an *UnknownTagError.
func Compile(text string, known func(name string) bool, texts ...string) (*Formula, error) {
	tree, err := parser.Parse(text)
	if err != nil {
		return nil, words(err)
	}
	f := &Formula{env: map[string]any{}}
	v := &visitor{}
	ast.Walk(&tree.Node, v)
	if f.inputs = v.inputs; len(f.inputs) == 0 {
		return nil, errors.New("it names no tag")
	}
	if v.called != "" {
		return nil, fmt.Errorf("there is no function %s", v.called)
	}
	kinds := types.Map{}
	for _, name := range f.inputs {
		if !known(name) {
			return nil, &UnknownTagError{name}
		}
		kinds[name] = types.Any
		if slices.Contains(texts, name) {
			kinds[name] = types.String
		}
	}
	options := []expr.Option{expr.Env(kinds), expr.DisableAllBuiltins(), expr.Patch(modulo{}),
		expr.Function(remainder, func(x ...any) (any, error) { return mod(x[0], x[1]) }, new(func(any, any) float64))}
	for _, name := range functions {
		options = append(options, expr.EnableBuiltin(name))
	}
	if f.program, err = expr.Compile(text, options...); err != nil {
		return nil, words(err)
	}
	return f, nil
}

// The % of the language takes whole numbers only, and every reading is a float64 here.
const remainder = "remainder"

type modulo struct{}

// Visit replaces x % y by a call that takes any numbers.
func (modulo) Visit(node *ast.Node) {
	if n, ok := (*node).(*ast.BinaryNode); ok && n.Operator == "%" {
		ast.Patch(node, &ast.CallNode{Callee: &ast.IdentifierNode{Value: remainder}, Arguments: []ast.Node{n.Left, n.Right}})
	}
}

func mod(x, y any) (float64, error) {
	a, ok := asFloat(x)
	b, ok2 := asFloat(y)
	if !ok || !ok2 {
		return 0, fmt.Errorf("invalid operation: %T %% %T", x, y)
	}
	return math.Mod(a, b), nil
}

func asFloat(x any) (float64, bool) {
	switch x := x.(type) {
	case int:
		return float64(x), true
	case float64:
		return x, true
	}
	return 0, false
}

// words returns an error of the library in one line, without its drawing of the place.
func words(err error) error {
	var e *file.Error
	if errors.As(err, &e) {
		return errors.New(e.Message)
	}
	return err
}

// visitor collects the tags that an expression names, each once.
type visitor struct {
	inputs []string
	called string // a function that there is not
}

// Visit is called for each node, those below it first.
func (v *visitor) Visit(node *ast.Node) {
	name := ""
	switch n := (*node).(type) {
	case *ast.CallNode:
		if f, ok := n.Callee.(*ast.IdentifierNode); ok && !slices.Contains(functions, f.Value) {
			v.called = f.Value
		}
	case *ast.IdentifierNode:
		name = n.Value
	case *ast.MemberNode:
		env, isName := n.Node.(*ast.IdentifierNode)
		if text, ok := n.Property.(*ast.StringNode); ok && isName && env.Value == "$env" {
			name = text.Value
		}
	}
	if name != "" && name != "$env" && !slices.Contains(functions, name) && !slices.Contains(v.inputs, name) {
		v.inputs = append(v.inputs, name)
	}
}

// Inputs returns the names of the tags that the formula needs, in the order of Eval's readings.
func (f *Formula) Inputs() []string { return f.inputs }

// DataType returns the type of what the formula gives, telemetry.AnyType where that depends on the readings.
func (f *Formula) DataType() telemetry.DataType {
	t := f.program.Node().Type()
	if t == nil {
		return telemetry.AnyType
	}
	switch t.Kind() {
	case reflect.Bool:
		return telemetry.BoolType
	case reflect.String:
		return telemetry.StringType
	case reflect.Int, reflect.Float64:
		return telemetry.Float64Type
	}
	return telemetry.AnyType
}

// Eval works the formula out. readings are those of Inputs, in their order. The quality is that of the worst input, the time that of the latest.
func (f *Formula) Eval(readings []*telemetry.Reading) telemetry.Reading {
	var out telemetry.Reading
	for i, r := range readings {
		if r == nil {
			return telemetry.Reading{Quality: telemetry.Bad, Reason: fmt.Sprintf("%s has not been read yet", f.inputs[i])}
		}
		out.Time = max(out.Time, r.Time)
		if r.Quality > out.Quality || r.Quality == telemetry.Bad && out.Reason == "" {
			out.Quality, out.Reason = r.Quality, fmt.Sprintf("%s: %s", f.inputs[i], r.Reason)
		}
		f.env[f.inputs[i]] = operand(r.Value)
	}
	if out.Quality == telemetry.Bad {
		return out
	}
	result, err := f.machine.Run(f.program, f.env)
	value, ok := valueOf(result)
	switch {
	case err != nil:
		out.Quality, out.Reason = telemetry.Bad, "the formula fails: "+words(err).Error()
	case !ok:
		out.Quality, out.Reason = telemetry.Bad, fmt.Sprintf("the formula gives %v, which is no value", result)
	default:
		out.Value = value
	}
	return out
}

// operand returns a value as formulas know it: every number is a float64.
func operand(v telemetry.Value) any {
	switch v.Kind {
	case telemetry.KindBool:
		return v.Bits != 0
	case telemetry.KindString:
		return v.Text
	}
	if x, ok := v.Float(); ok {
		return x
	}
	return nil
}

// valueOf returns what a formula gave as a value; a number that is none, such as 1/0, is no value.
func valueOf(x any) (telemetry.Value, bool) {
	switch x := x.(type) {
	case bool:
		return telemetry.Bool(x), true
	case string:
		return telemetry.String(x), true
	case int:
		return telemetry.Float64(float64(x)), true
	case float64:
		return telemetry.Float64(x), !math.IsNaN(x) && !math.IsInf(x, 0)
	}
	return telemetry.Value{}, false
}
