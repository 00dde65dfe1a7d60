package aiplatform

import (
	"encoding/json"
	"math"
	"strconv"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/internal/resource"
)

// predictJSON writes what a prediction container is given: instances, and
// parameters when there are any.
func predictJSON(req *pb.PredictRequest) ([]byte, error) {
	b := append(make([]byte, 0, 64*len(req.GetInstances())+64), `{"instances":[`...)
	var err error
	for i, v := range req.GetInstances() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, v); err != nil {
			return nil, resource.Invalid("instances", "instance %d: %w", i, err)
		}
	}
	b = append(b, ']')
	if req.GetParameters() != nil {
		b = append(b, `,"parameters":`...)
		if b, err = appendValue(b, req.GetParameters()); err != nil {
			return nil, resource.Invalid("parameters", "%w", err)
		}
	}
	return append(b, '}'), nil
}

// appendValue writes a value as JSON; whole numbers have no fraction.
func appendValue(b []byte, v *structpb.Value) (_ []byte, err error) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		n := k.NumberValue
		if math.IsNaN(n) || math.IsInf(n, 0) {
			return nil, resource.Invalid("", "%v is not a JSON number: send null for a missing value", n)
		}
		if n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return strconv.AppendFloat(b, n, 'f', -1, 64), nil
		}
		return strconv.AppendFloat(b, n, 'g', -1, 64), nil
	case *structpb.Value_StringValue:
		return appendJSONString(b, k.StringValue), nil
	case *structpb.Value_BoolValue:
		return strconv.AppendBool(b, k.BoolValue), nil
	case *structpb.Value_ListValue:
		b = append(b, '[')
		for i, e := range k.ListValue.GetValues() {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendValue(b, e); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case *structpb.Value_StructValue:
		b = append(b, '{')
		first := true
		for key, e := range k.StructValue.GetFields() {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(appendJSONString(b, key), ':')
			if b, err = appendValue(b, e); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	default:
		return append(b, "null"...), nil
	}
}

// appendJSONString quotes s; plain text is copied.
func appendJSONString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x80 {
			q, err := json.Marshal(s)
			if err != nil { // a string always marshals
				return append(b, `""`...)
			}
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
