package gcpc

import (
	"encoding/json"
	"maps"
)

// CustomJobOf makes the request body of CreateCustomJob out of a payload.
func CustomJobOf(payload, runLabels string) (map[string]any, error) {
	job, err := DecodePayload("--payload", payload)
	if err != nil {
		return nil, err
	}
	AddLabels(job, runLabels)
	job = Compact(job)
	pools, _ := at(job, "job_spec")["worker_pool_specs"].([]any)
	for _, pool := range pools {
		writeOut(pool, "container_spec", "command", "args")
		writeOut(pool, "python_package_spec", "args")
	}
	// Which the API takes with FLEX_START only, and the component always sends.
	if s := at(job, "job_spec", "scheduling"); s["strategy"] != nil && s["strategy"] != "FLEX_START" {
		delete(s, "max_wait_duration")
	}
	return job, nil
}

// writeOut makes texts of numbers and booleans in the words of a command: inputs of a
// pipeline come as what they are.
func writeOut(pool any, spec string, fields ...string) {
	object, _ := pool.(map[string]any)
	for _, field := range fields {
		words, _ := at(object, spec)[field].([]any)
		for i, word := range words {
			if _, isText := word.(string); !isText {
				if text, err := json.Marshal(word); err == nil {
					words[i] = string(text)
				}
			}
		}
	}
}

// unmanaged is the input artifact that stands for a model which is not registered.
const unmanaged = "unmanaged_container_model"

// BatchJobOf makes the request body of CreateBatchPredictionJob.
func BatchJobOf(payload, runLabels string, in ExecutorInput) (map[string]any, error) {
	job, err := DecodePayload("--payload", payload)
	if err != nil {
		return nil, err
	}
	if a, ok := in.input(unmanaged); ok {
		model := map[string]any{"artifact_uri": a.URI}
		maps.Copy(model, a.Metadata) // predictSchemata, containerSpec
		job[unmanaged] = model
	}
	AddLabels(job, runLabels)
	return Compact(job), nil
}

// ModelOf makes the model of UploadModel.
func ModelOf(payload, runLabels string, in ExecutorInput) (map[string]any, error) {
	model, err := DecodePayload("--payload", payload)
	if err != nil {
		return nil, err
	}
	if a, ok := in.input(unmanaged); ok {
		model["predict_schemata"], model["container_spec"], model["artifact_uri"] = a.Metadata["predictSchemata"], a.Metadata["containerSpec"], a.URI
	}
	AddLabels(model, runLabels)
	out := Compact(model)
	if metadata := at(model, "explanation_spec", "metadata"); len(metadata) > 0 {
		put(out, metadata, "explanation_spec", "metadata") // empty inputs mean something here
	}
	return out, nil
}

// EndpointOf makes the endpoint of CreateEndpoint.
func EndpointOf(payload, runLabels string) (map[string]any, error) {
	endpoint, err := DecodePayload("--payload", payload)
	if err != nil {
		return nil, err
	}
	AddLabels(endpoint, runLabels)
	return Compact(endpoint), nil
}

// RequestOf reads the payload of a launcher that changes what is there: it names the
// resource, in a field of this name, and the rest is the request.
func RequestOf(payload, field string) (name string, request map[string]any, err error) {
	request, err = DecodePayload("--payload", payload)
	if err != nil {
		return "", nil, err
	}
	request = Compact(request)
	name, _ = request[field].(string)
	return name, request, nil
}
