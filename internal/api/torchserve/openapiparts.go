package torchserve

import (
	"net/http"
	"strconv"
	"strings"
)

const jsonType = "application/json"

func content(kind string, schema object) object { return object{kind: object{"schema": schema}} }

func schemaOf(fields ...string) object {
	props := object{}
	for _, f := range fields {
		name, kind, _ := strings.Cut(f, " ")
		props[name] = object{"type": kind}
	}
	return object{"type": "object", "properties": props}
}

func statusContent() object { return content(jsonType, schemaOf("status string")) }

// responses lists an answer and the errors that are possible.
func responses(about string, c object, others ...int) object {
	ok := object{"description": about}
	if c != nil {
		ok["content"] = c
	}
	out := object{strconv.Itoa(http.StatusOK): ok}
	for _, e := range others {
		r := object{"description": http.StatusText(e), "content": content(jsonType, schemaOf("code integer", "type string", "message string"))}
		if e < 400 {
			r["content"] = statusContent()
		}
		out[strconv.Itoa(e)] = r
	}
	return out
}

func operation(id, about string, params []object, answers object) object {
	if params == nil {
		params = []object{}
	}
	op := object{"description": about, "parameters": params, "responses": answers}
	if id != "" {
		op["operationId"] = id
	}
	return op
}

func descriptionOperation(id string) object {
	return operation(id, "Get openapi description.", nil,
		responses("A openapi 3.0.1 descriptor", content(jsonType, schemaOf("openapi string", "info object", "paths object")), http.StatusInternalServerError))
}

func predictOperation(path, id, about string) object {
	binary := content("*/*", object{"type": "string", "format": "binary"})
	op := operation(id, about, pathParameters(path), responses("Output data format is defined by each model.", binary,
		http.StatusNotFound, http.StatusInternalServerError, http.StatusServiceUnavailable))
	op["requestBody"] = object{"description": "Input data format is defined by each model.", "required": true, "content": binary}
	return op
}

func parameters(ps ...object) []object { return ps }

func query(name, kind, about string) object {
	return object{"in": "query", "name": name, "description": about, "required": false, "schema": object{"type": kind}}
}

func required(p object) object {
	p["required"] = true
	return p
}

// pathParameters are those in braces.
func pathParameters(path string) []object {
	out := []object{}
	for rest := path; ; {
		_, after, ok := strings.Cut(rest, "{")
		if !ok {
			return out
		}
		name, tail, ok := strings.Cut(after, "}")
		if !ok {
			return out
		}
		out = append(out, object{"in": "path", "name": name, "required": true, "schema": object{"type": "string"}})
		rest = tail
	}
}
