package identity

import (
	"slices"
	"strings"
)

// storageVerbs are the verbs of the storage service by collection
// (cloud.google.com/storage/docs/access-control/iam-permissions).
const (
	objectReads  = "storage.objects.get storage.objects.list"
	objectWrites = "storage.objects.create storage.objects.update storage.objects.delete storage.objects.restore storage.objects.move"
	objectRules  = "storage.objects.getIamPolicy storage.objects.setIamPolicy storage.objects.setRetention " +
		"storage.objects.overrideUnlockedRetention"
	uploadWrites = "storage.multipartUploads.create storage.multipartUploads.abort storage.multipartUploads.listParts"
	uploadReads  = "storage.multipartUploads.list"
	bucketReads  = "storage.buckets.get storage.buckets.list"
	bucketWrites = "storage.buckets.create storage.buckets.update storage.buckets.delete storage.buckets.restore " +
		"storage.buckets.getIamPolicy storage.buckets.setIamPolicy storage.buckets.enableObjectRetention " +
		"storage.buckets.createTagBinding storage.buckets.deleteTagBinding storage.buckets.listTagBindings"
)

// storageRole gives the permissions of a role that a bucket's policy may bind
// (cloud.google.com/storage/docs/access-control/iam-roles); ok is false for a
// role that no bucket takes.
func storageRole(role string) (permissions string, ok bool) {
	join := func(s ...string) (string, bool) { return strings.Join(s, " "), true }
	name, _ := strings.CutPrefix(role, storageRolePrefix)
	switch name {
	case "objectViewer":
		return join(objectReads)
	case "objectCreator":
		return join("storage.objects.create", uploadWrites)
	case "objectUser":
		return join(objectReads, objectWrites, uploadWrites, uploadReads)
	case "objectAdmin":
		return join(objectReads, objectWrites, objectRules, uploadWrites, uploadReads)
	case "bucketViewer":
		return join(bucketReads)
	case "admin":
		return join(bucketReads, bucketWrites, objectReads, objectWrites, objectRules, uploadWrites, uploadReads)
	case "legacyBucketReader":
		return join("storage.buckets.get storage.objects.list", uploadReads)
	case "legacyBucketWriter":
		return join("storage.buckets.get storage.objects.list storage.objects.create storage.objects.delete storage.objects.restore "+
			"storage.objects.setRetention", uploadWrites, uploadReads)
	case "legacyBucketOwner":
		return join("storage.buckets.get storage.buckets.update storage.buckets.getIamPolicy storage.buckets.setIamPolicy "+
			"storage.buckets.enableObjectRetention storage.objects.list storage.objects.create storage.objects.delete "+
			"storage.objects.restore storage.objects.setRetention", uploadWrites, uploadReads)
	case "legacyObjectReader":
		return join("storage.objects.get")
	case "legacyObjectOwner":
		return join("storage.objects.get storage.objects.update", objectRules)
	default:
		return "", false
	}
}

const storageRolePrefix = "roles/storage."

// storageRoles names the roles, for messages and tests.
func storageRoles() []string {
	return []string{
		"objectViewer", "objectCreator", "objectUser", "objectAdmin", "bucketViewer", "admin",
		"legacyBucketReader", "legacyBucketWriter", "legacyBucketOwner", "legacyObjectReader", "legacyObjectOwner",
	}
}

// roleGrants reports whether a bound role has a permission.
func roleGrants(role, permission string) bool {
	if !strings.HasPrefix(role, storageRolePrefix) {
		return false
	}
	permissions, _ := storageRole(role)
	return slices.Contains(strings.Fields(permissions), permission)
}
