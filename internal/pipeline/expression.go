package pipeline

import (
	"encoding/json"
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"google.golang.org/protobuf/types/known/structpb"
)

// expressions compiles the two kinds of CEL in the IR: conditions over the inputs
// of a task, and selectors that take a part of one value.
type expressions struct{ conditions, selectors *cel.Env }

// evalLimit bounds the work of one evaluation; real conditions need a few dozen.
const evalLimit = 1_000_000

func newExpressions() (*expressions, error) {
	parse := cel.Function("parseJson", cel.Overload("parse_json", []*cel.Type{cel.StringType}, cel.DynType, cel.UnaryBinding(parseJSON)))
	// With map(string, dyn) cel-go leaves a free type and int(x) takes only
	// integers; every number here is a double.
	inputs := cel.MapType(cel.StringType, cel.MapType(cel.StringType, cel.DynType))
	conditions, err := cel.NewEnv(cel.Variable("inputs", inputs), parse)
	if err != nil {
		return nil, fmt.Errorf("set up conditions: %w", err)
	}
	selectors, err := cel.NewEnv(cel.Variable("string_value", cel.StringType), parse)
	if err != nil {
		return nil, fmt.Errorf("set up selectors: %w", err)
	}
	return &expressions{conditions: conditions, selectors: selectors}, nil
}

func parseJSON(arg ref.Val) ref.Val {
	s, ok := arg.Value().(string)
	if !ok {
		return types.MaybeNoSuchOverloadErr(arg)
	}
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		return types.NewErr("parseJson: %v", err)
	}
	return types.DefaultTypeAdapter.NativeToValue(v)
}

func compile(env *cel.Env, source string) (cel.Program, error) {
	ast, issues := env.Compile(source)
	if issues.Err() != nil {
		return nil, fmt.Errorf("%q does not compile: %w", source, issues.Err())
	}
	p, err := env.Program(ast, cel.CostLimit(evalLimit))
	if err != nil {
		return nil, fmt.Errorf("%q does not compile: %w", source, err)
	}
	return p, nil
}

// evalCondition answers whether a task is triggered. params holds every declared
// input; absent ones are nil.
func evalCondition(p cel.Program, params map[string]any) (bool, error) {
	old := make(map[string]any, len(params)) // schema 2.0.0: inputs.parameters['x'].string_value
	for k, v := range params {
		forms := map[string]any{"string_value": plainText(v)}
		if f, ok := v.(float64); ok {
			forms["double_value"], forms["int_value"] = f, int64(f)
		}
		old[k] = forms
	}
	out, _, err := p.Eval(map[string]any{"inputs": map[string]any{"parameter_values": params, "parameters": old}})
	if err != nil {
		return false, fmt.Errorf("condition: %w", err)
	}
	b, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("condition gave %v, not true or false", out.Value())
	}
	return b, nil
}

// evalSelector takes a part of v, which it sees as JSON text.
func evalSelector(p cel.Program, v any) (any, error) {
	out, _, err := p.Eval(map[string]any{"string_value": plainText(v)})
	if err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	native, err := out.ConvertToNative(types.JSONValueType)
	if err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	value, ok := native.(*structpb.Value)
	if !ok {
		return nil, fmt.Errorf("selector gave %T", native)
	}
	return value.AsInterface(), nil
}
