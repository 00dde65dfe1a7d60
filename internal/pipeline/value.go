package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	ps "tategu/internal/pipeline/pipelinespec"
)

// Parameter values are plain JSON values: nil, bool, float64, string, []any and
// map[string]any. The wire carries every number as a double; what a program sees
// is written by the declared type, so that 21.0 stays 21.0 for NUMBER_DOUBLE.

type paramType = ps.ParameterType_ParameterTypeEnum

// typed is what input and output parameter definitions have in common.
type typed interface {
	GetParameterType() paramType
	GetType() ps.PrimitiveType_PrimitiveTypeEnum
}

// typeOf gives the declared type; schema 2.0.0 knew only three, by other names.
func typeOf(p typed) paramType {
	if t := p.GetParameterType(); t != ps.ParameterType_PARAMETER_TYPE_ENUM_UNSPECIFIED {
		return t
	}
	switch p.GetType() {
	case ps.PrimitiveType_INT:
		return ps.ParameterType_NUMBER_INTEGER
	case ps.PrimitiveType_DOUBLE:
		return ps.ParameterType_NUMBER_DOUBLE
	case ps.PrimitiveType_STRING:
		return ps.ParameterType_STRING
	default:
		return ps.ParameterType_PARAMETER_TYPE_ENUM_UNSPECIFIED
	}
}

// checkType reports a value that is not of the declared type.
func checkType(v any, t paramType) error {
	ok := true
	switch t {
	case ps.ParameterType_NUMBER_DOUBLE:
		_, ok = v.(float64)
	case ps.ParameterType_NUMBER_INTEGER:
		var f float64
		f, ok = v.(float64)
		ok = ok && f == math.Trunc(f)
	case ps.ParameterType_STRING:
		_, ok = v.(string)
	case ps.ParameterType_BOOLEAN:
		_, ok = v.(bool)
	case ps.ParameterType_LIST:
		_, ok = v.([]any)
	case ps.ParameterType_STRUCT, ps.ParameterType_TASK_FINAL_STATUS, ps.ParameterType_TASK_CONFIG:
		_, ok = v.(map[string]any)
	default:
	}
	if !ok {
		return fmt.Errorf("want %s, got %s", t, describe(v))
	}
	return nil
}

// convert fits a value that one task gave to the type that another declares: a
// STRING takes any value as JSON text, and text becomes what it spells.
func convert(v any, t paramType) (any, error) {
	if t == ps.ParameterType_STRING {
		return plainText(v), nil
	}
	if s, ok := v.(string); ok && t != ps.ParameterType_PARAMETER_TYPE_ENUM_UNSPECIFIED {
		parsed, err := fromText(s, t)
		if err != nil {
			return nil, err
		}
		v = parsed
	}
	return v, checkType(v, t)
}

// fromText reads what a program wrote to the file of an output parameter.
func fromText(s string, t paramType) (any, error) {
	if t == ps.ParameterType_STRING || t == ps.ParameterType_PARAMETER_TYPE_ENUM_UNSPECIFIED {
		return s, nil
	}
	text := strings.TrimSpace(s)
	if t == ps.ParameterType_BOOLEAN {
		text = strings.ToLower(text) // Python writes True and False
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("want %s, got the text %q", t, clip(s, 80))
	}
	return v, checkType(v, t)
}

// text is how a value stands in a command line.
func text(v any, t paramType) string {
	if f, ok := v.(float64); ok && t == ps.ParameterType_NUMBER_DOUBLE {
		return double(f)
	}
	return plainText(v)
}

func plainText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return string(encode(v))
}

// encodeTyped is the JSON of a value in an executor input.
func encodeTyped(v any, t paramType) json.RawMessage {
	if f, ok := v.(float64); ok && t == ps.ParameterType_NUMBER_DOUBLE {
		return json.RawMessage(double(f))
	}
	return encode(v)
}

// double writes a number that every reader takes for a floating point one.
func double(f float64) string {
	s := string(encode(f))
	if strings.ContainsAny(s, ".e") {
		return s
	}
	return s + ".0"
}

// encode is compact JSON with sorted keys and no HTML escapes; a whole number has
// no fraction.
func encode(v any) json.RawMessage {
	if f, ok := v.(float64); ok && f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return json.RawMessage(strconv.FormatFloat(f, 'f', -1, 64))
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return json.RawMessage("null") // NaN and infinities have no JSON form
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "the boolean " + strconv.FormatBool(v)
	case float64:
		return "the number " + plainText(v)
	case string:
		return fmt.Sprintf("the string %q", clip(v, 80))
	case []any:
		return "a list"
	default:
		return "a struct"
	}
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// oneOf checks the literals that an input may be limited to.
func oneOf(v any, literals []*structpb.Value) error {
	if len(literals) == 0 {
		return nil
	}
	want := make([]string, len(literals))
	for i, l := range literals {
		want[i] = string(encode(l.AsInterface()))
	}
	if !slices.Contains(want, string(encode(v))) {
		return fmt.Errorf("want one of %s, got %s", strings.Join(want, ", "), describe(v))
	}
	return nil
}

// legacy gives the value of the schema 2.0.0 Value message, nil when unset.
func legacy(v *ps.Value) any {
	switch x := v.GetValue().(type) {
	case *ps.Value_IntValue:
		return float64(x.IntValue)
	case *ps.Value_DoubleValue:
		return x.DoubleValue
	case *ps.Value_StringValue:
		return x.StringValue
	default:
		return nil
	}
}

// constant gives a compiled-in value; ok is false when there is none.
func constant(v *ps.ValueOrRuntimeParameter) (value any, ok bool) {
	if c := v.GetConstant(); c != nil {
		return c.AsInterface(), true
	}
	if c := v.GetConstantValue(); c != nil {
		return legacy(c), true
	}
	return nil, false
}
