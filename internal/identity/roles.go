package identity

import (
	"cmp"
	"slices"
	"strings"
)

// Public is the permission of methods that anyone authenticated may call.
const Public = "public"

// PermissionActAs is needed to run something as a service account.
const PermissionActAs = "iam.serviceAccounts.actAs"

// Permissions of the platform's own administration.
const (
	PermissionCreateLogins = "tategu.tokens.create"
	PermissionListLogins   = "tategu.tokens.list"
	PermissionDeleteLogins = "tategu.tokens.delete"
	PermissionListAudit    = "tategu.audit.list"
	PermissionBackup       = "tategu.backup.create"
	PermissionCollect      = "tategu.storage.collect"
	PermissionListQueue    = "tategu.queue.list"
)

// ParseRole reads a role's name.
func ParseRole(s string) (Role, bool) {
	r := Role(s)
	return r, r.rank() > 0
}

func (r Role) rank() int { return 1 + slices.Index([]Role{Viewer, User, Admin}, r) }

// rule says which verbs on some collections each role adds to the one below it.
// Permissions are SERVICE.COLLECTION.VERB, named like the cloud's own; a
// permission that is in no rule is the administrator's alone.
type rule struct {
	service             string
	collections         string
	viewer, user, admin string
}

// rules is the whole policy. A user does the daily work of a project, which
// includes deploying and deleting models, endpoints and jobs as the cloud's
// aiplatform.user does; what outlives the work or opens doors (buckets
// themselves, policies, tokens) is the administrator's.
func rules() []rule {
	return []rule{
		{
			service:     "aiplatform",
			collections: "batchPredictionJobs customJobs hyperparameterTuningJobs pipelineJobs trainingPipelines",
			viewer:      "get list", user: "create update cancel delete run batchCancel batchDelete",
		},
		{
			service: "aiplatform", collections: "schedules",
			viewer: "get list", user: "create update delete pause resume",
		},
		{
			service: "aiplatform", collections: "models modelVersions modelEvaluations modelEvaluationSlices",
			viewer: "get list listVersions listCheckpoints",
			user:   "create upload update delete deleteVersion copy export import mergeVersionAliases updateExplanationDataset",
		},
		{
			service: "aiplatform", collections: "endpoints deploymentResourcePools",
			viewer: "get list queryDeployedModels",
			user:   "create update delete deploy undeploy mutate mutateDeployedModel predict rawPredict streamRawPredict explain",
		},
		{
			service: "aiplatform", collections: "indexes",
			viewer: "get list", user: "create update delete",
		},
		{
			service: "aiplatform", collections: "indexEndpoints",
			viewer: "get list", user: "create update delete deploy undeploy queryVectors",
		},
		{
			service: "aiplatform", collections: "metadataStores metadataSchemas contexts executions artifacts",
			viewer: "get list queryContextLineageSubgraph queryExecutionInputsAndOutputs queryArtifactLineageSubgraph",
			user: "create update delete purge addContextArtifactsAndExecutions addContextChildren removeContextChildren " +
				"addExecutionEvents",
		},
		{
			service: "aiplatform", collections: "operations",
			viewer: "get list wait", user: "cancel delete",
		},
		{service: "aiplatform", collections: "locations", viewer: "get list"},
		{
			service: "storage", collections: "buckets",
			viewer: "get list", user: "create", admin: "update delete getIamPolicy setIamPolicy",
		},
		{
			service: "storage", collections: "objects",
			viewer: "get list", user: "create update delete restore move setRetention", admin: "getIamPolicy setIamPolicy overrideUnlockedRetention",
		},
		{service: "storage", collections: "multipartUploads", viewer: "list listParts", user: "create abort"},
		{
			service: "artifactregistry", collections: "repositories",
			viewer: "get list downloadArtifacts", user: "uploadArtifacts deleteArtifacts",
		},
		{service: "resourcemanager", collections: "projects", viewer: "get list", admin: "getIamPolicy setIamPolicy"},
		{service: "iam", collections: "serviceAccounts", user: "actAs signBlob signJwt"},
		{service: "iam", collections: "serviceAccountKeys", viewer: "get list", admin: "create delete"},
		{service: "tategu", collections: "jobs tasks logs", viewer: "get list"},
		{service: "tategu", collections: "tokens", admin: "create list delete"},
		{service: "tategu", collections: "audit", admin: "list"},
		{service: "tategu", collections: "backup", admin: "create"},
		{service: "tategu", collections: "storage", admin: "collect"},
	}
}

// policy maps a permission to the lowest role that has it.
type policy map[string]Role

func newPolicy(rules []rule) policy {
	p := policy{Public: Viewer}
	for _, r := range rules {
		for collection := range strings.FieldsSeq(r.collections) {
			for _, add := range []struct {
				role  Role
				verbs string
			}{{Viewer, r.viewer}, {User, r.user}, {Admin, r.admin}} {
				for verb := range strings.FieldsSeq(add.verbs) {
					p[r.service+"."+collection+"."+verb] = add.role
				}
			}
		}
	}
	return p
}

// RoleFor gives the lowest role that has a permission. known is false for a
// permission in no rule, which only administrators have.
func RoleFor(permission string) (role Role, known bool) {
	r, ok := newPolicy(rules())[permission]
	return cmp.Or(r, Admin), ok
}

func (p policy) allows(role Role, permission string) bool {
	return role.rank() >= cmp.Or(p[permission], Admin).rank()
}

// roleIn is the strongest role that p has in a project; "" is none.
func (p Principal) roleIn(project string) Role {
	if p.Operator {
		return Admin
	}
	best := p.Grants["*"]
	if r := p.Grants[project]; project != "" && project != "*" && r.rank() > best.rank() {
		best = r
	}
	return best
}
