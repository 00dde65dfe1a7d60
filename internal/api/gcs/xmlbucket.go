package gcs

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/identity"
	"tategu/internal/resource"
)

// encodeKey writes a name as the client asked: plain, or so that also names which
// XML cannot hold come through (encoding-type=url).
func encodeKey(c *call, name string) string {
	if c.query.Get("encoding-type") != "url" {
		return name
	}
	return strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(name))
}

type bucketXML struct {
	Name         string
	CreationDate string
}

// xmlProject is the project that a request without a bucket is about.
func xmlProject(c *call) (string, error) {
	project := c.r.Header.Get("X-Goog-Project-Id")
	if project == "" {
		return "", &xmlError{
			http.StatusBadRequest, "UserProjectMissing",
			resource.Invalid("x-goog-project-id", "which project's? the header x-goog-project-id is missing"),
		}
	}
	return project, nil
}

// xmlListBuckets is GET of the service itself.
func (h *Handler) xmlListBuckets(c *call) error {
	project, err := xmlProject(c)
	if err != nil {
		return err
	}
	if err := h.auth.Authorize(c.ctx(), identity.FromContext(c.ctx()), project, "storage.buckets.list"); err != nil {
		return err
	}
	limit, err := c.pageLimit("max-keys")
	if err != nil {
		return err
	}
	buckets, err := h.blobs.ListBuckets(c.ctx(), project, c.query.Get("prefix"), c.query.Get("marker"), limit+1)
	if err != nil {
		return err
	}
	answer := struct {
		XMLName    xml.Name    `xml:"ListAllMyBucketsResult"`
		Xmlns      string      `xml:"xmlns,attr"`
		OwnerID    string      `xml:"Owner>ID"`
		Buckets    []bucketXML `xml:"Buckets>Bucket"`
		NextMarker string      `xml:",omitempty"`
	}{Xmlns: xmlNamespace, OwnerID: project}
	for i, b := range buckets {
		if i == limit {
			answer.NextMarker = buckets[i-1].Name
			break
		}
		answer.Buckets = append(answer.Buckets, bucketXML{Name: b.Name, CreationDate: xmlTime(b.Created)})
	}
	return c.replyXML(answer)
}

// createXML is the body of PUT bucket; it may be absent.
type createXML struct {
	XMLName            xml.Name `xml:"CreateBucketConfiguration"`
	LocationConstraint string
	StorageClass       string
	Others             []node `xml:",any"`
}

func (h *Handler) xmlCreateBucket(c *call) error {
	project, err := xmlProject(c)
	if err != nil {
		return err
	}
	if err := h.auth.Authorize(c.ctx(), identity.FromContext(c.ctx()), project, "storage.buckets.create"); err != nil {
		return err
	}
	b := blob.Bucket{Name: c.names[0], Project: project, StorageClass: c.r.Header.Get("X-Goog-Storage-Class")}
	if err := blob.CheckBucketName(b.Name); err != nil {
		return &xmlError{http.StatusBadRequest, "InvalidBucketName", err}
	}
	if c.r.ContentLength != 0 {
		var req createXML
		if err := readXML(c, &req); err != nil {
			return err
		}
		for _, other := range req.Others {
			if other.name() != "IamConfiguration" { // uniform access, which every bucket has
				return resource.Unimplemented("element " + other.name() + " in CreateBucketConfiguration")
			}
		}
		b.Location = strings.ToUpper(req.LocationConstraint)
		if req.StorageClass != "" {
			b.StorageClass = req.StorageClass
		}
	}
	if err := checkClass(b.StorageClass); err != nil {
		return err
	}
	_, err = h.blobs.CreateBucket(c.ctx(), b)
	if resource.CodeOf(err) == codes.AlreadyExists {
		if old, _ := h.blobs.GetBucket(c.ctx(), b.Name); old.Project == project {
			return &xmlError{http.StatusConflict, "BucketAlreadyOwnedByYou", err}
		}
	}
	if err != nil {
		return err
	}
	return c.replyEmpty(http.StatusOK)
}

func (h *Handler) xmlHeadBucket(c *call) error {
	b, err := h.xmlBucket(c)
	if err != nil {
		return err
	}
	header := c.w.Header()
	header.Set("X-Goog-Metageneration", strconv.FormatInt(b.Metageneration, 10))
	header.Set("X-Goog-Storage-Class", b.StorageClass)
	header.Set("X-Goog-Bucket-Storage-Location", strings.ToUpper(b.Location))
	header.Set("Content-Type", "application/xml; charset=UTF-8")
	return c.replyEmpty(http.StatusOK)
}

func (h *Handler) xmlDeleteBucket(c *call) error {
	conds, err := conditions(c.query, "if")
	if err != nil {
		return err
	}
	if err := h.blobs.DeleteBucket(c.ctx(), c.names[0], conds); err != nil {
		return err
	}
	return c.replyEmpty(http.StatusNoContent)
}

// contentsXML is one entry of a list of objects.
type contentsXML struct {
	Key            string
	Generation     int64
	MetaGeneration int64
	IsLatest       *bool `xml:",omitempty"`
	LastModified   string
	DeletedTime    string `xml:",omitempty"`
	ETag           string
	Size           int64
	StorageClass   string
}

// listXML is a page of objects in both versions of the API.
type listXML struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Xmlns                 string   `xml:"xmlns,attr"`
	Name                  string
	Prefix                string
	Delimiter             string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	Marker                string
	NextMarker            string `xml:",omitempty"`
	GenerationMarker      string `xml:",omitempty"`
	NextGenerationMarker  string `xml:",omitempty"`
	StartAfter            string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	KeyCount              *int   `xml:",omitempty"`
	MaxKeys               int
	IsTruncated           bool
	Contents              []contentsXML
	Version               []contentsXML
	CommonPrefixes        []prefixXML
}

// xmlList gives a bucket's objects, by markers or (list-type=2) by tokens
// (cloud.google.com/storage/docs/xml-api/get-bucket-list).
func (h *Handler) xmlList(c *call) error {
	q := blob.ListQuery{Prefix: c.query.Get("prefix"), Delimiter: c.query.Get("delimiter"), Versions: c.query.Has("versions")}
	second, err := c.listVersion()
	if err != nil {
		return err
	}
	if v := c.query.Get("encoding-type"); v != "" && v != "url" {
		return resource.Invalid("encoding-type", "encoding-type=%q is not url", v)
	}
	limit, err := c.count("max-keys")
	if err != nil {
		return err
	}
	if q.Limit = min(limit, maxKeys); !c.query.Has("max-keys") {
		q.Limit = maxKeys
	}
	if err := c.listStart(&q, second); err != nil {
		return err
	}
	var page blob.ListPage
	if q.Limit > 0 { // a page of no keys is empty, and is the last one
		if page, err = h.blobs.List(c.ctx(), c.names[0], q); err != nil {
			return err
		}
	}
	return c.replyXML(c.listAnswer(q, page, second))
}

func (c *call) listVersion() (second bool, err error) {
	switch v := c.query.Get("list-type"); v {
	case "", "1":
		return false, nil
	case "2":
		return true, nil
	default:
		return false, resource.Invalid("list-type", "list-type=%q is not known: want 2", v)
	}
}

// listStart says where a page starts.
func (c *call) listStart(q *blob.ListQuery, second bool) error {
	if !second {
		q.After = c.query.Get("marker")
		if v := c.query.Get("key-marker"); v != "" && q.Versions {
			q.After = v
		}
		var err error
		q.AfterGeneration, err = generation(c.query, "generation-marker")
		return err
	}
	q.After = c.query.Get("start-after")
	token, err := parsePageToken(c.query.Get("continuation-token"))
	if token != "" {
		q.After = token
	}
	return err
}

func (c *call) listAnswer(q blob.ListQuery, page blob.ListPage, second bool) listXML {
	answer := listXML{
		Xmlns: xmlNamespace, Name: c.names[0], Prefix: encodeKey(c, q.Prefix), Delimiter: encodeKey(c, q.Delimiter), EncodingType: c.query.Get("encoding-type"),
		MaxKeys: q.Limit, IsTruncated: page.Next != "", CommonPrefixes: prefixesXML(c, page.Prefixes),
	}
	if second {
		n := len(page.Objects) + len(page.Prefixes)
		answer.KeyCount, answer.StartAfter, answer.ContinuationToken = &n, encodeKey(c, c.query.Get("start-after")), c.query.Get("continuation-token")
		answer.NextContinuationToken = pageToken(page.Next)
	} else {
		answer.Marker, answer.NextMarker, answer.GenerationMarker = encodeKey(c, q.After), encodeKey(c, page.Next), c.query.Get("generation-marker")
		if page.NextGeneration != 0 {
			answer.NextGenerationMarker = strconv.FormatInt(page.NextGeneration, 10)
		}
	}
	for _, o := range page.Objects {
		entry := contentsXML{
			Key: encodeKey(c, o.Name), Generation: o.Generation, MetaGeneration: o.Metageneration, LastModified: xmlTime(o.Updated),
			ETag: quoted(xmlETag(o)), Size: o.Size, StorageClass: o.StorageClass,
		}
		if !q.Versions {
			answer.Contents = append(answer.Contents, entry)
			continue
		}
		latest := o.Deleted.IsZero()
		entry.IsLatest = &latest
		if !latest {
			entry.DeletedTime = xmlTime(o.Deleted)
		}
		answer.Version = append(answer.Version, entry)
	}
	return answer
}

// deleteXML is the body of POST ?delete.
type deleteXML struct {
	XMLName xml.Name `xml:"Delete"`
	Quiet   bool
	Object  []struct {
		Key       string
		VersionID string `xml:"VersionId"`
	}
}

type deletedXML struct {
	Key       string
	VersionID string `xml:"VersionId,omitempty"`
}

type failedXML struct {
	Key       string
	VersionID string `xml:"VersionId,omitempty"`
	Code      string
	Message   string
}

// deletesAtOnce bounds the deletes of one request that wait for a commit.
const deletesAtOnce = 32

// xmlDeleteMany deletes up to 1,000 objects, each with an outcome of its own. One
// that is not there counts as deleted.
func (h *Handler) xmlDeleteMany(c *call) error {
	var req deleteXML
	if err := readXML(c, &req); err != nil {
		return err
	}
	if len(req.Object) == 0 || len(req.Object) > maxKeys {
		return malformed("the request names %d objects: want 1 to %d", len(req.Object), maxKeys)
	}
	answer := struct {
		XMLName xml.Name `xml:"DeleteResult"`
		Xmlns   string   `xml:"xmlns,attr"`
		Deleted []deletedXML
		Error   []failedXML
	}{Xmlns: xmlNamespace}
	failed := make([]error, len(req.Object))
	var together errgroup.Group // whose commits are shared
	together.SetLimit(deletesAtOnce)
	for i, o := range req.Object {
		together.Go(func() error {
			failed[i] = h.deleteOne(c, o.Key, o.VersionID)
			return nil
		})
	}
	_ = together.Wait() // each has its own outcome
	for i, o := range req.Object {
		err := failed[i]
		if err != nil && !resource.IsNotFound(err) {
			status, _ := answerOf(err)
			answer.Error = append(answer.Error, failedXML{Key: o.Key, VersionID: o.VersionID, Code: xmlCode(err, status), Message: err.Error()})
			continue
		}
		if !req.Quiet {
			answer.Deleted = append(answer.Deleted, deletedXML{Key: o.Key, VersionID: o.VersionID})
		}
	}
	return c.replyXML(answer)
}

func (h *Handler) deleteOne(c *call, name, version string) error {
	if err := blob.CheckName(name); err != nil {
		return err
	}
	number, err := generation(url.Values{"VersionId": {version}}, "VersionId")
	if err != nil {
		return err
	}
	return h.blobs.Delete(c.ctx(), c.names[0], name, number, blob.Conditions{})
}
