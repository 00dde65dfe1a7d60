package wire

import "strings"

// serviceRule is an HTTP binding from the service's YAML. The bindings of the
// mixin services are in aiplatform_v1.yaml alone, not in descriptors; those that
// the descriptors have belong to other APIs.
type serviceRule struct{ method, http, path, body string }

// hasServiceRules reports a service whose bindings come from here only.
func hasServiceRules(method string) bool {
	service, _, _ := strings.Cut(method, "/")
	switch service {
	case "google.longrunning.Operations", "google.cloud.location.Locations", "google.iam.v1.IAMPolicy":
		return true
	}
	return false
}

// isSuperseded reports methods whose paths another service took over: signing
// moved from iam to iamcredentials, under the same path of another host
// (google/iam/admin/v1/iam.proto, SignBlob). Over gRPC they are refused by name.
func isSuperseded(method string) bool {
	return method == "google.iam.admin.v1.IAM/SignBlob" || method == "google.iam.admin.v1.IAM/SignJwt"
}

// operationDepth is how many collection/id pairs lie between a location and its
// operations at most: tensorboards/*/experiments/*/runs/*/timeSeries/*.
const operationDepth = 4

// serviceRules: the first binding of each operation rule in the YAML is /ui,
// which is what the REST clients of the Python package poll.
func serviceRules() []serviceRule {
	const operations, locations, iam = "google.longrunning.Operations/", "google.cloud.location.Locations/", "google.iam.v1.IAMPolicy/"
	roots := []string{"/v1/", "/v1beta1/", "/ui/"}
	rules := make([]serviceRule, 0, len(roots)*(5*(operationDepth+1)+5))
	for _, root := range roots {
		on := "projects/*/locations/*"
		for range operationDepth + 1 {
			one := root + "{name=" + on + "/operations/*}"
			rules = append(rules,
				serviceRule{operations + "GetOperation", "GET", one, ""},
				serviceRule{operations + "ListOperations", "GET", root + "{name=" + on + "}/operations", ""},
				serviceRule{operations + "DeleteOperation", "DELETE", one, ""},
				serviceRule{operations + "CancelOperation", "POST", one + ":cancel", ""},
				serviceRule{operations + "WaitOperation", "POST", one + ":wait", ""},
			)
			on += "/*/*"
		}
		rules = append(rules,
			serviceRule{locations + "GetLocation", "GET", root + "{name=projects/*/locations/*}", ""},
			serviceRule{locations + "ListLocations", "GET", root + "{name=projects/*}/locations", ""},
		)
		on = root + "{resource=projects/*/locations/*/**}"
		rules = append(rules,
			serviceRule{iam + "SetIamPolicy", "POST", on + ":setIamPolicy", "*"},
			serviceRule{iam + "GetIamPolicy", "POST", on + ":getIamPolicy", "*"},
			serviceRule{iam + "TestIamPermissions", "POST", on + ":testIamPermissions", "*"},
		)
	}
	return rules
}
