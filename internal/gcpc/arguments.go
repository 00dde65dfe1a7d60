package gcpc

import (
	"slices"
	"strings"

	"tategu/internal/resource"
)

// Arguments are what a launcher is given. Which of them it needs depends on it.
type Arguments struct {
	Type          string // "CustomJob": must be the launcher's own
	Payload       string // JSON
	Project       string
	Location      string
	GCPResources  string // path of the file that names what was made
	ExecutorInput string // JSON
	ParentModel   string // of a model's next version; "" = a new model
	ModelName     string // of GetModel: MODEL, MODEL@VERSION or MODEL@ALIAS
}

// expected is what a launcher insists on.
type expected struct {
	typ   string
	needs []string // names of arguments that must be given, if only as ""
}

func expects(launcher string) expected {
	all := []string{"--type", "--project", "--location", "--payload", "--gcp_resources"}
	with := append(slices.Clone(all), "--executor_input")
	switch launcher {
	case CustomJob, CustomJobPreview:
		return expected{"CustomJob", all}
	case BatchPrediction:
		return expected{"BatchPredictionJob", with}
	case UploadModel:
		return expected{"UploadModel", with}
	case CreateEndpoint:
		return expected{"CreateEndpoint", with}
	case DeleteModel:
		return expected{"DeleteModel", all}
	case DeleteEndpoint:
		return expected{"DeleteEndpoint", all}
	case DeployModel:
		return expected{"DeployModel", all}
	case UndeployModel:
		return expected{"UndeployModel", all}
	case WaitResources:
		return expected{"Wait", all}
	default: // GetModel
		return expected{"", []string{"--executor_input"}}
	}
}

// ParseArguments reads the arguments of a module's launcher as argparse does:
// --name value or --name=value, the last one counts, what is not known is ignored.
func ParseArguments(module string, args []string) (Arguments, error) {
	var a Arguments
	if err := Check(module); err != nil {
		return a, err
	}
	into := map[string]*string{
		"--type": &a.Type, "--payload": &a.Payload, "--project": &a.Project, "--location": &a.Location, "--gcp_resources": &a.GCPResources,
		"--executor_input": &a.ExecutorInput, "--parent_model_name": &a.ParentModel, "--model_name": &a.ModelName,
	}
	given := map[string]bool{}
	for i := 0; i < len(args); i++ {
		name, value, inline := strings.Cut(args[i], "=")
		field := into[name]
		if field == nil {
			continue
		}
		if !inline {
			if i++; i == len(args) {
				return a, resource.Invalid(name, "%s has no value", name)
			}
			value = args[i]
		}
		*field, given[name] = value, true
	}
	want := expects(strings.TrimPrefix(module, Prefix))
	for _, name := range want.needs {
		if !given[name] {
			return a, resource.Invalid(name, "the argument %s of %s is missing", name, module)
		}
	}
	if a.Type != want.typ && want.typ != "" {
		return a, resource.Invalid("--type", "--type is %.80q, and %s wants %s", a.Type, module, want.typ)
	}
	return a, nil
}
